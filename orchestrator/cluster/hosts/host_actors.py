"""HostActors: starts and ends hosts and worker groups as Ray actors, and reserves their devices.

Without sharing a host is an actor that asks Ray for its GPU or its CPU core. Where trials share
GPUs, each GPU is reserved by a placement group of one bundle, and its hosts are actors inside it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.hosts.devices import Device, ResourceRequest, Slot
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy
from orchestrator.cluster.model_prefetch import ModelFiles
from orchestrator.cluster.nodes import host_gone
from orchestrator.planning.capacity import CPU_HOST_MEMORY_BYTES


@dataclass
class HostActors:
    """Every call to the actor of a host or of a worker group that the scheduler makes."""

    shape: HostShape
    sharing: SharingPolicy
    provenance: Mapping[str, str]
    python: str | None = None  # the command that replaces Python in the process of a host
    description: dict[str, Any] | None = None  # of the device of the first host that is up
    model_files: ModelFiles = field(default_factory=ModelFiles)
    _nodes: dict[str, Device] = field(default_factory=dict)

    async def start_on_new_device(self) -> Slot:
        """Starts a host on a device without hosts; returns its slot once the host can train.

        Waits until Ray has resources for it. On a machine without GPUs the device is the node,
        which may have other hosts.
        """
        device = self._reserve()
        slot = Slot(device)
        try:
            description = await self.start(slot)
        finally:
            if slot.actor is None:
                self._free(device)
        if self.shape.gpus == 0:
            slot.device = self._nodes.setdefault(slot.node_id, _node(slot.node_id))
        else:
            device.memory_bytes = self._memory_bytes(description)
        slot.device.slots.append(slot)
        return slot

    async def start(self, slot: Slot) -> dict[str, Any]:
        """Starts the slot's host on its device; returns its description once it can train."""
        actor = self._actor(slot.device)
        files = self.model_files
        if files:  # the node may have joined after they were fetched
            await actor.fetch_models.remote(files.models, files.access, files.data)
        description: dict[str, Any] = await actor.warm_up.remote()
        self.description = self.description or description
        slot.node_id = await actor.node_id.remote()
        slot.held_bytes = await actor.held_bytes.remote()
        slot.actor = actor
        return description

    def end(self, slot: Slot) -> None:
        """Ends the slot's host and removes the slot; a device without hosts is freed in Ray."""
        import ray

        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.device.slots.remove(slot)
        if not any(other.actor is not None for other in slot.device.slots):
            self._free(slot.device)

    async def set_share(self, slot: Slot, need: ResourceRequest) -> None:
        """Tells the host what its next trial may take of the device.

        Raises one of `host_gone` if the host is dead.
        """
        device = slot.device
        is_divided = device.is_part or device.max_hosts > 1
        share = device.share_bytes(need) if is_divided and not device.is_node else None
        if share is None and device.is_part:
            share = device.capacity_bytes
        await slot.actor.set_share.remote(share, device_shared=device.is_shared(need))

    async def interrupt(self, slot: Slot) -> None:
        """Interrupts the trial of a host or worker group; returns when its checkpoint is saved.

        Does nothing if the host is dead: the call that waits for its events raises as well.
        """
        with contextlib.suppress(*host_gone()):
            await slot.actor.interrupt.remote()

    async def until_death(self, slot: Slot) -> None:
        """Never returns; raises one of `host_gone` when the host dies."""
        await slot.actor.until_death.remote()

    def forget_base(self, slot: Slot) -> None:
        """Has an idle host drop its base; the host can be given a trial at once."""
        slot.actor.forget_base.remote()
        slot.base_key, slot.held_bytes = None, 0

    def reserve_for_worker(self, slot: Slot, trial_id: str, need: ResourceRequest) -> None:
        """Ends the slot's idle host, frees its resources in Ray for a worker of the trial, and
        marks the slot as the trial's."""
        import ray

        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.actor, slot.held_bytes, slot.trial_id = None, 0, trial_id
        exclusive = need.exclusive or not slot.device.is_node
        slot.need = ResourceRequest(need.memory_bytes, exclusive=exclusive)
        self._free(slot.device)

    def start_group(self, need: ResourceRequest, *, device_shared: bool) -> Any:
        """Starts the coordinator of `need.workers` workers, which it starts with its trial.

        `device_shared`: other trials may compute on one of the devices meanwhile.
        """
        from orchestrator.cluster.train_run import Layout
        from orchestrator.cluster.worker_group import worker_group_actor

        shape = self.shape
        device_type = str((self.description or {}).get("device_type", "cpu"))
        layout = Layout(
            need.workers,
            shape.cpus,
            shape.gpus,
            device_type,
            self.sharing.accelerator_type,
            device_shared,
        )
        worker_group = worker_group_actor(layout, dict(self.provenance))
        worker_group.set_hub_access.remote(self.model_files.access)
        return worker_group

    async def cancel_unstarted_group(self, worker_group: Slot) -> None:
        """Interrupts the trial of a worker group unless its workers have started.

        Does nothing if the coordinator is dead, as `interrupt`.
        """
        with contextlib.suppress(*host_gone()):
            await worker_group.actor.cancel_unless_started.remote()

    def end_group(self, worker_group: Slot) -> None:
        """Ends a worker group, its workers first."""
        worker_group.actor.abandon.remote()

    def _actor(self, device: Device) -> Any:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        from trainables.workers.host import Host

        if device.reserved is None:
            options = Host.options(
                num_cpus=self.shape.cpus,
                num_gpus=self.shape.gpus,
                accelerator_type=self.sharing.accelerator_type if self.shape.gpus else None,
                runtime_env=self._runtime_env(),
            )
            return options.remote(dict(self.provenance))
        inside = PlacementGroupSchedulingStrategy(device.reserved, placement_group_bundle_index=0)
        part = 1 / device.max_hosts
        cpus = math.floor(self.shape.cpus * part * 10_000) / 10_000  # Ray's precision
        options = Host.options(num_cpus=cpus, num_gpus=part, scheduling_strategy=inside)
        return options.remote(dict(self.provenance))

    def _runtime_env(self) -> dict[str, str] | None:
        """Hosts with a GPU are never forks, as no GPU context survives one."""
        if self.python is None or self.shape.gpus:
            return None
        return {"py_executable": self.python}

    def _reserve(self) -> Device:
        from ray.util.placement_group import placement_group

        shape, sharing = self.shape, self.sharing
        if sharing.hosts_per_gpu == 1 or shape.gpus != 1:
            return Device(is_part=0 < shape.gpus < 1)
        bundle = {"GPU": 1.0, "CPU": shape.cpus}
        if sharing.accelerator_type is not None:
            bundle[f"accelerator_type:{sharing.accelerator_type}"] = 0.001
        group = placement_group([bundle])
        return Device(max_hosts=sharing.hosts_per_gpu, reserved=group)

    def _free(self, device: Device) -> None:
        from ray.util.placement_group import remove_placement_group

        if device.reserved is not None:
            remove_placement_group(device.reserved)
            device.reserved = None

    def _memory_bytes(self, description: Mapping[str, Any]) -> int | None:
        whole = self.sharing.gpu_memory_bytes or description.get("device_memory_bytes")
        return whole if whole is None or self.shape.gpus >= 1 else int(whole * self.shape.gpus)


def _node(node_id: str) -> Device:
    """The memory of one of Ray's nodes, as a device."""
    import ray

    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    memory = nodes.get(node_id, {}).get("memory")
    return Device(
        memory_bytes=None if memory is None else int(memory),
        process_bytes=CPU_HOST_MEMORY_BYTES,
        is_node=True,
    )
