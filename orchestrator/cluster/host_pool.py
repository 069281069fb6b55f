"""HostStarts: hosts as Ray's actors, and the devices that Ray reserves for them.

Without sharing a host is an actor that asks Ray for its GPU or its CPU core. Where trials share
GPUs, each GPU is reserved by a placement group of one bundle, and its hosts are actors inside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.devices import Device, ResourceRequest, Slot
from orchestrator.cluster.host_shape import HostShape
from orchestrator.cluster.model_prefetch import ModelFiles
from orchestrator.planning.capacity import CPU_HOST_MEMORY_BYTES


@dataclass(frozen=True)
class SharingPolicy:
    """How trials share devices.

    `hosts_per_gpu`: at most so many trials on one GPU at once. `gpu_memory_bytes`: what a GPU is
    taken to have, None: what it says. `accelerator_type`: Ray's name of those that are used, None:
    any. `trials`: at most so many run at once, None: as fit.
    """

    hosts_per_gpu: int = 1
    gpu_memory_bytes: int | None = None
    accelerator_type: str | None = None
    trials: int | None = None


@dataclass
class HostStarts:
    """Starts hosts, on devices of their own or shared ones, and ends them."""

    shape: HostShape
    sharing: SharingPolicy
    provenance: Mapping[str, str]
    python: str | None = None  # the command that stands for Python in a host's process
    description: dict[str, Any] | None = None  # of the device of the first host that came up
    model_files: ModelFiles = field(default_factory=ModelFiles)
    _nodes: dict[str, Device] = field(default_factory=dict)

    async def first(self) -> Slot:
        """A host on a device that has none yet, once Ray has found a place for it.

        On a machine without GPUs the device is the node, which may have other hosts.
        """
        device = self._reserve()
        slot = Slot(device)
        try:
            description = await self.bring_up(slot)
        finally:
            if slot.actor is None:
                self._free(device)
        if self.shape.gpus == 0:
            slot.device = self._nodes.setdefault(slot.node_id, _node(slot.node_id))
        else:
            device.memory_bytes = self._memory_bytes(description)
        slot.device.slots.append(slot)
        return slot

    async def bring_up(self, slot: Slot) -> dict[str, Any]:
        """Starts the slot's host on its device; returns its description once it can train."""
        actor = self._actor(slot.device)
        if self.model_files.models:  # a node may have joined since they were brought to all
            await actor.bring_models.remote(self.model_files.models, self.model_files.access)
        description: dict[str, Any] = await actor.warm_up.remote()
        self.description = self.description or description
        slot.node_id = await actor.node_id.remote()
        slot.held_bytes = await actor.held_bytes.remote()
        slot.actor = actor
        return description

    def end(self, slot: Slot) -> None:
        """Ends a host; a device that is left without any is given back to Ray."""
        import ray

        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.device.slots.remove(slot)
        if not any(other.actor is not None for other in slot.device.slots):
            self._free(slot.device)

    async def hand_over(self, slot: Slot, need: ResourceRequest) -> None:
        """Tells a host what the trial that comes may take; raises what Ray does for a dead one."""
        device = slot.device
        is_divided = device.is_part or device.most_hosts > 1
        share = device.share_bytes(need) if is_divided and not device.is_node else None
        if share is None and device.is_part:
            share = device.capacity_bytes
        await slot.actor.take_share.remote(share, device_shared=device.is_shared(need))

    async def interrupt(self, slot: Slot) -> None:
        await slot.actor.interrupt.remote()

    async def until_death(self, slot: Slot) -> None:
        await slot.actor.until_death.remote()

    def forget_base(self, slot: Slot) -> None:
        """The host's base goes; it may be asked for another trial at once."""
        slot.actor.forget_base.remote()
        slot.base_key, slot.held_bytes = None, 0

    def lend(self, slot: Slot, trial_id: str, need: ResourceRequest) -> None:
        """A worker of a gang takes the place of an idle host; Ray has its resources back."""
        import ray

        if slot.actor is not None:
            ray.kill(slot.actor)
        slot.actor, slot.held_bytes, slot.trial_id = None, 0, trial_id
        exclusive = need.exclusive or not slot.device.is_node
        slot.need = ResourceRequest(need.memory_bytes, exclusive=exclusive)
        self._free(slot.device)

    def start_group(self, need: ResourceRequest, *, device_shared: bool) -> Any:
        """The front of so many workers; it starts them when it is given the trial.

        `device_shared`: others may compute on one of its devices meanwhile.
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
        worker_group.reach_hub.remote(self.model_files.access)
        return worker_group

    async def recall_group(self, worker_group: Slot) -> None:
        """Its trial comes again for other places, unless its workers have begun."""
        await worker_group.actor.wait_no_longer.remote()

    def end_group(self, worker_group: Slot) -> None:
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
        part = 1 / device.most_hosts
        cpus = math.floor(self.shape.cpus * part * 10_000) / 10_000  # Ray's precision
        options = Host.options(num_cpus=cpus, num_gpus=part, scheduling_strategy=inside)
        return options.remote(dict(self.provenance))

    def _runtime_env(self) -> dict[str, str] | None:
        """Hosts without a GPU may be forks; a GPU's context does not survive one."""
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
        return Device(most_hosts=sharing.hosts_per_gpu, reserved=group)

    def _free(self, device: Device) -> None:
        from ray.util.placement_group import remove_placement_group

        if device.reserved is not None:
            remove_placement_group(device.reserved)
            device.reserved = None

    def _memory_bytes(self, description: Mapping[str, Any]) -> int | None:
        whole = self.sharing.gpu_memory_bytes or description.get("device_memory_bytes")
        return whole if whole is None or self.shape.gpus >= 1 else int(whole * self.shape.gpus)


def _node(node_id: str) -> Device:
    """The memory of one of Ray's nodes."""
    import ray

    nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
    memory = nodes.get(node_id, {}).get("memory")
    return Device(
        memory_bytes=None if memory is None else int(memory),
        process_bytes=CPU_HOST_MEMORY_BYTES,
        is_node=True,
    )
