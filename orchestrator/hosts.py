"""Admission: the one place that decides which trial runs on which host.

Hosts (trainables/host.py) are Ray actors that hold the accelerator. As many as the cluster has
room for are started with the sweep and kept; a trial is given a free host that already holds its
base where there is one. First come, first served.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.errors import InputError

CPU_HOST_MEMORY_BYTES = 1 << 30  # a host's process with its imports, before it loads a model
_ROUNDING = 1e-9  # 1.0 // 0.2 is 4


@dataclass(frozen=True)
class HostShape:
    """What one host asks Ray for, and how many hosts the sweep keeps."""

    cpus: float
    gpus: float
    count: int


@dataclass
class _Slot:
    """One host: its actor, the base it holds, the trial it runs."""

    actor: Any
    base_key: str | None = None
    trial_id: str | None = None
    idle_since: int = 0


@dataclass
class Admission:
    """An async Ray actor (see `start_admission`); every method is safe to call concurrently."""

    shape: HostShape
    provenance: dict[str, str]
    _ready: list[_Slot] = field(default_factory=list)
    _waiting: deque[asyncio.Future[_Slot]] = field(default_factory=deque)
    _starting: set[asyncio.Task[None]] = field(default_factory=set)
    _wanted: dict[asyncio.Future[_Slot], str] = field(default_factory=dict)
    _clock: int = 0
    _description: dict[str, Any] | None = None

    async def open(self) -> dict[str, Any]:
        """Starts all hosts; returns the first one's description of its device."""
        for _ in range(self.shape.count):
            self._start_host()
        while self._description is None:
            done, _ = await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return self._description

    async def acquire(self, trial_id: str, base_key: str) -> Any:
        """A free host for the trial, waiting in line for one; `release` gives it back."""
        if not self._ready and not self._starting:  # the last one died, and so did its successor
            self._start_host()
        free = [slot for slot in self._ready if slot.trial_id is None]
        if free and not self._waiting:
            slot = self._best(free, base_key)
        else:
            slot = await self._wait_in_line(base_key)
        slot.trial_id, slot.base_key = trial_id, base_key
        return slot.actor

    def release(self, trial_id: str) -> None:
        """The trial has left its host, which is free for the next; unknown trials are ignored."""
        for slot in self._ready:
            if slot.trial_id == trial_id:
                slot.trial_id = None
                self._clock += 1
                slot.idle_since = self._clock
        self._serve()

    def replace(self, trial_id: str) -> None:
        """The trial's host has died: it is dropped and another one started in its place."""
        lost = [slot for slot in self._ready if slot.trial_id == trial_id]
        self._ready = [slot for slot in self._ready if slot.trial_id != trial_id]
        for _ in lost:
            self._start_host()

    def _start_host(self) -> None:
        task = asyncio.get_running_loop().create_task(self._bring_up())
        self._starting.add(task)
        task.add_done_callback(self._host_came_up_or_not)

    def _host_came_up_or_not(self, task: asyncio.Task[None]) -> None:
        """When the last hope for a host is gone, those that wait are told so."""
        self._starting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or self._ready or self._starting:
            return
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)

    async def _bring_up(self) -> None:
        from trainables.host import Host

        shape = self.shape
        actor = Host.options(num_cpus=shape.cpus, num_gpus=shape.gpus).remote(self.provenance)
        description = await actor.warm_up.remote()
        if self._description is None:
            self._description = description
        self._ready.append(_Slot(actor))
        self._serve()

    async def _wait_in_line(self, base_key: str) -> _Slot:
        place: asyncio.Future[_Slot] = asyncio.get_running_loop().create_future()
        self._wanted[place] = base_key
        self._waiting.append(place)
        try:
            return await place
        finally:
            del self._wanted[place]

    def _serve(self) -> None:
        """Gives free hosts to those that wait, first come first served."""
        while self._waiting:
            free = [slot for slot in self._ready if slot.trial_id is None]
            if not free:
                return
            place = self._waiting.popleft()
            if place.cancelled():
                continue
            slot = self._best(free, self._wanted[place])
            slot.trial_id = "(assigned)"
            place.set_result(slot)

    @staticmethod
    def _best(free: list[_Slot], base_key: str) -> _Slot:
        """A host with the base; else one without any; else the one idle for longest."""
        return min(
            free,
            key=lambda slot: (
                slot.base_key != base_key,
                slot.base_key is not None,
                slot.idle_since,
            ),
        )


def start_admission(name: str, shape: HostShape, *, provenance: dict[str, str]) -> Any:
    """Admission as a Ray actor that takes no CPU of its own and is found by its name."""
    import ray

    actor = ray.remote(Admission).options(name=name, num_cpus=0, max_concurrency=1000)
    return actor.remote(shape, provenance)


def host_shape(
    nodes: Sequence[Mapping[str, float]],
    *,
    cpus: float | None,
    gpus: float | None,
    count: int | None,
    trials: int,
) -> HostShape:
    """How hosts divide the cluster: a GPU each where there are any, else a CPU core each.

    `nodes` are the resources of Ray's nodes (CPU, GPU, memory in bytes); cpus, gpus and count are
    what the space sets, None where it is left to us. A GPU's host gets its share of the node's
    cores. There are never more hosts than trials, nor on a CPU more than memory has room for.
    Raises InputError if no node has room for a host.
    """
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    each_gpus = (1.0 if has_gpus else 0.0) if gpus is None else gpus
    each_cpus = _cpus_each(nodes, each_gpus) if cpus is None else cpus
    room = sum(_room(node, each_cpus, each_gpus) for node in nodes)
    if room == 0:
        raise InputError(_no_room(nodes, each_cpus, each_gpus))
    wanted = min(room, trials) if count is None else min(room, count)
    return HostShape(each_cpus, each_gpus, max(1, wanted))


def _cpus_each(nodes: Sequence[Mapping[str, float]], gpus: float) -> float:
    """A whole number of cores per host where there are enough, else a fraction of one."""
    if gpus == 0:
        return 1.0
    shares = [
        node.get("CPU", 0) / max(1, math.floor(node["GPU"] / gpus + _ROUNDING))
        for node in nodes
        if node.get("GPU", 0) >= min(gpus, 1)
    ]
    share = min(shares, default=1.0)
    return float(math.floor(share)) if share >= 1 else share


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many hosts a node has room for."""
    limits = [(node.get("CPU", 0), cpus), (node.get("GPU", 0), gpus)]
    if gpus == 0 and "memory" in node:
        limits.append((node["memory"], CPU_HOST_MEMORY_BYTES))
    return min(math.floor(has / each + _ROUNDING) for has, each in limits if each > 0)


def _no_room(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> str:
    have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
    return (
        f"resources: a trial asks for {cpus:g} CPUs and {gpus:g} GPUs, and no node has them "
        f"(nodes: {have}). Lower resources.cpus_per_trial or resources.gpus_per_trial."
    )
