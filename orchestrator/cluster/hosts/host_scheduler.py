"""HostScheduler: the actor that decides which trial runs on which host.

Hosts (trainables/workers/host.py) are Ray actors that hold the accelerator. As many as the cluster
has resources for are started with the sweep and kept. Where trials may share a GPU, more are
started on it on demand; for a trial of several workers as many hosts end for as long as it runs.
`orchestrator.cluster.hosts.placement` chooses the next trial and its host.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.hosts.devices import RESERVED, ResourceRequest, Slot
from orchestrator.cluster.hosts.group_places import GroupPlaces
from orchestrator.cluster.hosts.host_actors import HostActors
from orchestrator.cluster.hosts.host_pool import HostPool
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy
from orchestrator.cluster.hosts.placement import Availability, Placement, QueueEntry, next_start
from orchestrator.cluster.model_prefetch import ModelFiles
from orchestrator.cluster.nodes import dead_nodes, host_gone
from orchestrator.cluster.ray_internals import draining_nodes
from orchestrator.formatting import counted
from trainables.errors import first_line

NODE_POLL_SECONDS = 2.0  # between looks at which nodes are dead or draining


@dataclass(frozen=True)
class HostStatus:
    """The numbers of hosts and of waiting trials, and the problems since the last status."""

    up: int
    starting: int
    waiting: int
    problems: tuple[str, ...] = ()


@dataclass
class HostScheduler:
    """An async Ray actor (see `start_host_scheduler`); every method is safe to call concurrently.

    Hosts that die, or whose node is dead or draining, are replaced by new ones as soon as Ray has
    resources for them; until then the others serve.
    """

    shape: HostShape
    provenance: dict[str, str]
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    python: str | None = None  # see `HostActors`
    _line: list[QueueEntry] = field(default_factory=list)
    _expecting: list[QueueEntry] = field(default_factory=list)  # a host is being started for each
    _problems: list[str] = field(default_factory=list)
    _reported: set[str] = field(default_factory=set)
    _is_ending: bool = False

    def __post_init__(self) -> None:
        self._actors = self._host_actors()
        self._pool = HostPool(self._actors, on_change=self._serve, on_failure=self._on_failure)
        self._groups = GroupPlaces(self._pool)

    async def open(self, model_files: ModelFiles | None = None) -> dict[str, Any]:
        """Starts all hosts, each once `model_files` are on its node; returns the description of the
        first one's device.

        `model_files` is an argument of this call and not of the constructor because Ray stores
        constructor arguments, and it holds a token.
        """
        self._actors.model_files = model_files or self._actors.model_files
        description = await self._pool.open()
        self._pool.run_in_background(self._poll_nodes())
        return description

    async def acquire(
        self, trial_id: str, base_key: str, need: ResourceRequest | None = None
    ) -> Any:
        """Returns a host for the trial with room for what it needs, as soon as there is one.

        `release` gives it back. Returns None when the sweep ends (see `interrupt`).
        """
        entry = QueueEntry(trial_id, base_key, need or ResourceRequest())
        while not self._is_ending:
            slot = await self._wait_for_slot(entry)
            if slot is None:
                return None
            if await self._is_ready(slot, entry.need):
                slot.base_key = base_key
                return slot.actor
            self.replace(trial_id)  # it died while idle, which does not count against the trial
        return None

    def release(self, trial_id: str, held_bytes: int | None = None) -> None:
        """Frees the trial's host, which holds `held_bytes` of its device (None: as before).

        Unknown trials are ignored.
        """
        for slot in self._slots_of(trial_id):
            if held_bytes is not None:
                slot.held_bytes = held_bytes
            self._free(slot)
        self._serve()

    def replace(self, trial_id: str) -> None:
        """Ends the trial's host, which is unusable, and starts another one in its place.

        If the trial still waits for a host, its `acquire` returns None.
        """
        for entry in [entry for entry in self._awaiting() if entry.trial_id == trial_id]:
            entry.resolve(None)
        for slot in self._slots_of(trial_id):
            if slot.members:
                self._groups.end(slot)
            else:
                self._pool.replace(slot)
        self._serve()

    async def interrupt(self) -> None:
        """Interrupts running trials, which save a checkpoint; waiting ones get no host.

        Returns when all checkpoints are written. No trial gets a host until `reopen`.
        """
        self._is_ending = True
        for entry in self._awaiting():
            entry.resolve(None)
        busy = [self._actors.interrupt(slot) for slot in self._up() if slot.trial_id is not None]
        await asyncio.gather(*busy, return_exceptions=True)

    def is_ending(self) -> bool:
        """Whether `interrupt` was called, and not `reopen` since."""
        return self._is_ending

    def reopen(self) -> None:
        """Gives out hosts again, to score the report split after the trials have ended."""
        self._is_ending = False

    def counts(self) -> tuple[int, int, int]:
        """The numbers of hosts that are up, of hosts being started, and of waiting trials."""
        return len(self._up()), self._pool.starting, len(self._line)

    def running(self) -> int:
        """How many trials have a host, or one that is being started for them."""
        slots = [slot for device in self._pool.devices for slot in device.running]
        return len({slot.trial_id for slot in slots} - {RESERVED})

    def status(self) -> HostStatus:
        """The status now; each problem is reported once."""
        problems, self._problems = tuple(self._problems), []
        return HostStatus(*self.counts(), problems=problems)

    def _host_actors(self) -> HostActors:
        return HostActors(self.shape, self.sharing, self.provenance, self.python)

    def _up(self) -> list[Slot]:
        return [*self._pool.up(), *self._groups.groups]

    def _slots_of(self, trial_id: str) -> list[Slot]:
        return [slot for slot in self._up() if slot.trial_id == trial_id]

    def _awaiting(self) -> list[QueueEntry]:
        return [*self._line, *self._expecting]

    async def _wait_for_slot(self, entry: QueueEntry) -> Slot | None:
        """Returns a slot, marked as the trial's; None if the sweep ends meanwhile."""
        is_new = entry.future is None
        entry.future = asyncio.get_running_loop().create_future()
        self._line.insert(len(self._line) if is_new else 0, entry)
        if (
            not self._pool.devices and not self._pool.starting
        ):  # the last one died, and so did its successor
            self._pool.start_host()
        self._serve()
        try:
            slot: Slot | None = await entry.future
            return slot
        finally:
            if entry in self._line:  # the caller was cancelled
                self._line.remove(entry)

    async def _is_ready(self, slot: Slot, need: ResourceRequest) -> bool:
        """Whether the host lives and knows its share; its node may just have died."""
        if slot.members:
            return True  # its workers start later; the caller that starts the trial waits for them
        try:
            await self._actors.set_share(slot, need)
        except host_gone():
            return False
        return True

    def _free(self, slot: Slot) -> None:
        if slot.members:
            self._groups.end(slot)
        else:
            self._pool.set_idle(slot)

    def _serve(self) -> None:
        """Gives hosts to waiting trials, while there are any for them."""
        self._groups.start_in_vacant(self._line)
        self._report_missing_hosts()
        while not self._is_full():
            found = next_start(self._line, self._pool.devices, self._availability())
            if found is None:
                return
            entry, placement = found
            self._line.remove(entry)
            if not entry.future.done():
                self._place(entry, placement)

    def _availability(self, *, also_coming: int = 0) -> Availability:
        return Availability(self._pool.coming + also_coming, expected=self.shape.count)

    def _report_missing_hosts(self) -> None:
        availability = self._availability(also_coming=self._groups.owed)
        for need in [entry.need for entry in self._line]:
            if availability.is_short(self._pool.devices, need):
                self._report(
                    f"A trial of {counted(need.workers, 'worker')} waits: too few of the sweep's "
                    f"{counted(self.shape.count, 'host')} are up. Trials that need fewer are still "
                    "started."
                )

    def _is_full(self) -> bool:
        most = self.sharing.trials
        return most is not None and self.running() >= most

    def _place(self, entry: QueueEntry, placement: Placement) -> None:
        if placement.members:
            self._groups.start(entry, placement)
            return
        for slot in placement.evicted:
            if placement.device.is_node:
                self._actors.forget_base(slot)
            else:
                self._actors.end(slot)
        slot = placement.slot or Slot(placement.device)
        slot.trial_id, slot.need = entry.trial_id, entry.need
        if placement.slot is not None:
            entry.resolve(slot)
            return
        placement.device.slots.append(slot)
        self._expecting.append(entry)
        self._pool.start(self._start_for(entry, slot))

    async def _start_for(self, entry: QueueEntry, slot: Slot) -> None:
        """Starts a further host on a shared device; if that fails the trial waits on."""
        try:
            await self._pool.start_in(slot)
        finally:
            self._expecting.remove(entry)
            if slot.actor is None:
                if not entry.future.done():
                    self._line.insert(0, entry)
                self._serve()
        if entry.future.done():  # the caller was cancelled
            self._free(slot)
        self._pool.add(slot)
        entry.resolve(slot)

    def _on_failure(self, error: BaseException) -> None:
        """Reports a host that could not be started; waiting trials fail if there is no other."""
        left = len(self._up())
        self._report(f"A host could not be started ({first_line(error)}): {left} are left.")
        if left or self._pool.starting:
            return
        while self._line:
            entry = self._line.pop(0)
            if not entry.future.done():
                entry.future.set_exception(error)

    async def _poll_nodes(self) -> None:
        """Moves trials off draining nodes while they can still save, and off dead ones.

        If Ray cannot list the nodes this is reported, and tried again.
        """
        while True:
            look = asyncio.get_running_loop().create_task(asyncio.to_thread(_nodes_to_leave))
            await asyncio.wait([look])
            error = look.exception()
            if error is None:
                draining, self._groups.dead_nodes = look.result()
                self._pool.leave_nodes(draining)
                self._groups.leave_dead_nodes()
            else:
                self._report(
                    "Ray did not say which nodes are about to be taken away "
                    f"({first_line(error)}); trials there resume from their last checkpoint."
                )
            await asyncio.sleep(NODE_POLL_SECONDS)

    def _report(self, problem: str) -> None:
        if problem not in self._reported:
            self._reported.add(problem)
            self._problems.append(problem)


def _nodes_to_leave() -> tuple[set[str], set[str]]:
    """The ids of the nodes that are draining, and of those that are dead."""
    return draining_nodes(), dead_nodes()


def start_host_scheduler(
    name: str,
    shape: HostShape,
    *,
    provenance: dict[str, str],
    sharing: SharingPolicy | None = None,
    python: str | None = None,
) -> Any:
    """Starts the scheduler as a Ray actor of this name, which takes no CPU.

    It runs on the head node, without which there is no cluster; other nodes come and go.
    """
    import ray

    actor = ray.remote(HostScheduler).options(
        name=name, num_cpus=0, max_concurrency=1000, resources={"node:__internal_head__": 0.001}
    )
    return actor.remote(shape, provenance, sharing or SharingPolicy(), python)
