"""Admission: the one place that decides which trial runs on which host.

Hosts (trainables/workers/host.py) are Ray actors that hold the accelerator. As many as the cluster
has
room for are started with the sweep and kept; where trials may share a GPU, more are started on it
when one would, and for a trial of several workers (`orchestrator.cluster.worker_group`) as many
end for as long as it runs. Who is next and where it goes: `orchestrator.cluster.placement`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.devices import Device, ResourceRequest, Slot
from orchestrator.cluster.host_pool import HostStarts, SharingPolicy
from orchestrator.cluster.host_shape import HostShape
from orchestrator.cluster.model_prefetch import ModelFiles
from orchestrator.cluster.nodes import dead_nodes, draining_nodes, host_gone
from orchestrator.cluster.placement import Availability, Placement, QueueEntry, next_start
from trainables.errors import first_line

BRING_UP_ATTEMPTS = 3
NOBODY = ""  # in a slot that is kept for a gang
SECONDS_FOR_A_GROUP = 2.0  # that its places are kept for the next one
SECONDS_BETWEEN_LOOKS = 2.0  # at which nodes are gone, or about to be taken away
SECONDS_A_HOST_IS_EXPECTED = 300.0  # for which a gang waits for it; a new node may have to start


@dataclass(frozen=True)
class HostStatus:
    """How hosts and trials stand, and what went wrong since it was asked before."""

    up: int
    starting: int
    waiting: int
    troubles: tuple[str, ...] = ()


@dataclass
class HostScheduler:
    """An async Ray actor (see `start_host_scheduler`); every method is safe to call concurrently.

    Hosts that die, or whose node is lost or about to be taken away, are replaced by new ones where
    Ray finds room; until it does the others serve.
    """

    shape: HostShape
    provenance: dict[str, str]
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    python: str | None = None  # see `HostStarts`
    _devices: list[Device] = field(default_factory=list)
    _line: list[QueueEntry] = field(default_factory=list)
    _expecting: list[QueueEntry] = field(default_factory=list)
    _starting: set[asyncio.Task[None]] = field(default_factory=set)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)
    _troubles: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)
    _calling: set[asyncio.Task[None]] = field(default_factory=set)
    _worker_groups: list[Slot] = field(default_factory=list)
    _vacant: list[Slot] = field(default_factory=list)  # a gang has left them
    _owed: list[bool] = field(default_factory=list)  # called off for a gang; whether it was late
    _late: set[asyncio.Task[None]] = field(default_factory=set)  # starts no gang waits for any more
    _dead_nodes: set[str] = field(default_factory=set)
    _clock: int = 0
    _ending: bool = False

    def __post_init__(self) -> None:
        self._starts = self._host_starts()

    async def open(self, model_files: ModelFiles | None = None) -> dict[str, Any]:
        """Starts all hosts, each once `model_files` are on its node; returns the first one's
        description of its device.

        They come with this call: what an actor is made with, its token too, Ray would keep.
        """
        self._starts.model_files = model_files or self._starts.model_files
        for _ in range(self.shape.count):
            self._start_host()
        while self._starts.description is None:
            done, _ = await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        self._run_beside(self._leave_draining_nodes())
        return self._starts.description

    async def acquire(
        self, trial_id: str, base_key: str, need: ResourceRequest | None = None
    ) -> Any:
        """A host for the trial, with room for what it needs, waiting in line for one.

        `release` gives it back. None once the sweep ends (see `interrupt`).
        """
        place = QueueEntry(trial_id, base_key, need or ResourceRequest())
        while not self._ending:
            slot = await self._wait_for_slot(place)
            if slot is None:
                return None
            if await self._is_handed_over(slot, place.need):
                slot.base_key = base_key
                return slot.actor
            self.replace(trial_id)  # it died while nobody looked; that is no fault of the trial
        return None

    def release(self, trial_id: str, held_bytes: int | None = None) -> None:
        """The trial has left its host, which is free for the next and holds `held_bytes` of its
        device (None: as before); unknown trials are ignored."""
        for slot in self._slots_of(trial_id):
            if held_bytes is not None:
                slot.held_bytes = held_bytes
            self._set_free(slot)
        self._serve()

    def replace(self, trial_id: str) -> None:
        """The trial's host is of no use any more: it is ended, and another started in its place.

        A trial that waits for a host waits no longer.
        """
        for place in [place for place in self._awaiting() if place.trial_id == trial_id]:
            place.answer(None)
        for slot in self._slots_of(trial_id):
            self._replace(slot)
        self._serve()

    async def interrupt(self) -> None:
        """The sweep ends: running trials save a checkpoint and leave; none is given a host.

        Returns when all checkpoints are written.
        """
        self._ending = True
        for place in self._awaiting():
            place.answer(None)
        busy = [self._interrupted(slot) for slot in self._up() if slot.trial_id is not None]
        await asyncio.gather(*busy, return_exceptions=True)

    def is_ending(self) -> bool:
        """Whether `interrupt` was called, and not `reopen`."""
        return self._ending

    def reopen(self) -> None:
        """Hosts are given out again: the trials have ended, their report split has not."""
        self._ending = False

    def counts(self) -> tuple[int, int, int]:
        """How many hosts are up, how many are being started, and how many wait for one."""
        return len(self._up()), len(self._starting), len(self._line)

    def running(self) -> int:
        """How many trials have a host, or one that is being started for them."""
        slots = [slot for device in self._devices for slot in device.running]
        return len({slot.trial_id for slot in slots} - {NOBODY})

    def status(self) -> HostStatus:
        """How all stands; each trouble is told once."""
        troubles, self._troubles = tuple(self._troubles), []
        return HostStatus(*self.counts(), troubles=troubles)

    def _host_starts(self) -> HostStarts:
        return HostStarts(self.shape, self.sharing, self.provenance, self.python)

    def _up(self) -> list[Slot]:
        slots = [slot for device in self._devices for slot in device.slots]
        return [slot for slot in (*slots, *self._worker_groups) if slot.actor is not None]

    def _slots_of(self, trial_id: str) -> list[Slot]:
        return [slot for slot in self._up() if slot.trial_id == trial_id]

    def _awaiting(self) -> list[QueueEntry]:
        """Those in line, and those for whom a host is being started."""
        return [*self._line, *self._expecting]

    async def _wait_for_slot(self, place: QueueEntry) -> Slot | None:
        """A host, marked as the trial's; None if the sweep ends meanwhile."""
        is_new = place.given is None
        place.given = asyncio.get_running_loop().create_future()
        self._line.insert(len(self._line) if is_new else 0, place)
        if not self._devices and not self._starting:  # the last one died, and its successor too
            self._start_host()
        self._serve()
        try:
            slot: Slot | None = await place.given
            return slot
        finally:
            if place in self._line:  # whoever waited has given up
                self._line.remove(place)

    def _serve(self) -> None:
        """Gives hosts to those that wait, while there are any for them."""
        self._reuse_vacant_places()
        self._log_missing_hosts()
        while not self._is_full():
            found = next_start(self._line, self._devices, self._supply())
            if found is None:
                return
            place, placement = found
            self._line.remove(place)
            if not place.given.done():
                self._place(place, placement)

    def _supply(self, *, also_coming: int = 0) -> Availability:
        coming = len(self._calling - self._late) + also_coming
        return Availability(coming, expected=self.shape.count)

    def _log_missing_hosts(self) -> None:
        supply = self._supply(also_coming=self._owed.count(False))
        for need in [place.need for place in self._line]:
            if supply.is_short(self._devices, need):
                self._log(
                    f"A trial of {need.workers} workers waits: of the {self.shape.count} hosts of "
                    "this sweep too few are up; trials that need fewer go on."
                )

    def _is_full(self) -> bool:
        most = self.sharing.trials
        return most is not None and self.running() >= most

    def _place(self, place: QueueEntry, placement: Placement) -> None:
        if placement.members:
            self._place_group(place, placement)
            return
        for slot in placement.evicted:
            if placement.device.is_node:
                self._starts.forget_base(slot)
            else:
                self._starts.end(slot)
        slot = placement.slot or Slot(placement.device)
        slot.trial_id, slot.need = place.trial_id, place.need
        if placement.slot is not None:
            place.answer(slot)
            return
        placement.device.slots.append(slot)
        self._expecting.append(place)
        self._start(self._bring_up_for(slot, place))

    def _place_group(self, place: QueueEntry, placement: Placement) -> None:
        """Its workers take the places of idle hosts, which end; those on their way are called off,
        lest they take what is meant for the workers. All are started again after it."""
        for slot in placement.evicted:
            self._starts.end(slot)
        for task in self._calling:
            task.cancel()
            self._owed.append(task in self._late)
        self._calling.clear()
        self._start_group(place, placement.members)

    def _start_group(self, place: QueueEntry, members: tuple[Slot, ...]) -> None:
        for member in members:
            self._starts.lend(member, place.trial_id, place.need)
        shared = any(member.device.is_shared_beside(members, place.need) for member in members)
        actor = self._starts.start_group(place.need, device_shared=shared)
        worker_group = Slot(Device(), actor, trial_id=place.trial_id, members=members)
        self._worker_groups.append(worker_group)
        place.answer(worker_group)

    def _disband(self, worker_group: Slot) -> None:
        """Its places are kept for a gang that is first in line, as one that has lost a worker and
        comes again at once; then hosts are started there."""
        self._worker_groups.remove(worker_group)
        self._starts.end_group(worker_group)
        for member in worker_group.members:
            member.trial_id = NOBODY
        self._vacant += worker_group.members
        self._run_beside(self._refill(worker_group.members))

    def _reuse_vacant_places(self) -> None:
        """Vacant places go to the first in line, if it is a gang that they are enough for."""
        there = [slot for slot in self._vacant if slot.node_id not in self._dead_nodes]
        while self._line and 0 < self._line[0].need.workers <= len(there):
            place = self._line.pop(0)
            if not place.given.done():
                members, there = tuple(there[: place.need.workers]), there[place.need.workers :]
                self._vacant = [slot for slot in self._vacant if slot not in members]
                self._start_group(place, members)

    async def _refill(self, members: tuple[Slot, ...]) -> None:
        await asyncio.sleep(SECONDS_FOR_A_GROUP)
        left = [member for member in members if member in self._vacant]
        for member in left:
            self._vacant.remove(member)
            member.device.slots.remove(member)
            if member.device in self._devices and not member.device.slots:
                self._devices.remove(member.device)
        hosts = [False for _ in left]
        if not self._worker_groups:
            hosts, self._owed = hosts + self._owed, []
        for is_late in hosts:
            self._start_host(is_late=is_late)

    def _start_host(self, *, is_late: bool = False) -> None:
        task = self._start(self._bring_up())
        self._calling.add(task)
        if is_late:
            self._late.add(task)
        loop = asyncio.get_running_loop()
        loop.call_later(SECONDS_A_HOST_IS_EXPECTED, self._give_up_on, task)

    def _give_up_on(self, task: asyncio.Task[None]) -> None:
        if task in self._calling:
            self._late.add(task)
            self._serve()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._starting.add(task)
        task.add_done_callback(self._host_came_up_or_not)
        return task

    def _host_came_up_or_not(self, task: asyncio.Task[None]) -> None:
        """What is lost is said; with the last hope for a host, those that wait are told so."""
        for tasks in (self._starting, self._calling, self._late):
            tasks.discard(task)
        self._serve()
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        left = len(self._up())
        self._log(f"A host could not be started ({first_line(error)}): {left} are left.")
        if self._up() or self._starting:
            return
        while self._line:
            place = self._line.pop(0)
            if not place.given.done():
                place.given.set_exception(error)

    async def _bring_up(self) -> None:
        """A host, once Ray has found a place for it; one whose node dies meanwhile is retried."""
        for attempt in range(BRING_UP_ATTEMPTS):
            try:
                slot = await self._starts.first()
            except host_gone():
                if attempt == BRING_UP_ATTEMPTS - 1:
                    raise
            else:
                self._calling -= {asyncio.current_task()}
                self._came_up(slot)
                return

    async def _bring_up_for(self, slot: Slot, place: QueueEntry) -> None:
        """A further host on a device that a trial is to share; without it the trial waits on."""
        try:
            await self._starts.bring_up(slot)
        finally:
            self._expecting.remove(place)
            if slot.actor is None:
                self._did_not_come_up(slot, place)
        if place.given.done():  # whoever waited has given up
            self._set_free(slot)
        self._came_up(slot)
        place.answer(slot)

    def _did_not_come_up(self, slot: Slot, place: QueueEntry) -> None:
        device = slot.device
        device.slots.remove(slot)
        device.most_hosts = max(1, len(device.slots))
        if not place.given.done():
            self._line.insert(0, place)
        self._serve()

    def _came_up(self, slot: Slot) -> None:
        if slot.device not in self._devices:
            self._devices.append(slot.device)
        self._run_beside(self._notice_death(slot))
        self._serve()

    def _set_free(self, slot: Slot) -> None:
        if slot.leaving or slot.members:
            self._replace(slot)
            return
        slot.trial_id = None
        self._clock += 1
        slot.idle_since = self._clock

    def _replace(self, slot: Slot) -> None:
        """Another host is started unless the device still has one."""
        if slot.members:
            self._disband(slot)
            return
        device = slot.device
        self._starts.end(slot)
        if any(other.actor is not None for other in device.slots) and not device.is_node:
            return
        if not device.is_node or not device.slots:
            self._devices.remove(device)
        self._start_host()

    def _run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets something run beside; the loop alone would forget it."""
        task = asyncio.get_running_loop().create_task(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _notice_death(self, slot: Slot) -> None:
        """Replaces a host that dies while it is free; a trial's proxy sees to its own."""
        try:
            await self._starts.until_death(slot)
        except host_gone():
            if slot in self._up() and slot.trial_id is None:
                self._replace(slot)

    async def _leave_draining_nodes(self) -> None:
        """Moves trials off nodes that are about to be taken away, while there is time to save, and
        gangs off nodes that are gone.

        That Ray can't be asked for them is said; it is asked again.
        """
        while True:
            look = asyncio.get_running_loop().create_task(asyncio.to_thread(_nodes_to_leave))
            await asyncio.wait([look])
            error = look.exception()
            if error is None:
                draining, self._dead_nodes = look.result()
                self._leave(draining)
                self._leave_dead_places()
            else:
                self._log(
                    "Whether nodes are about to be taken away can't be seen now "
                    f"({first_line(error)}); trials on such a node go back to their checkpoint."
                )
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    def _leave(self, draining: set[str]) -> None:
        for slot in [slot for slot in self._up() if slot.node_id in draining]:  # no gangs
            slot.device.leaving = True
            if slot.trial_id is None:
                self._replace(slot)
            elif not slot.leaving:
                slot.leaving = True
                self._run_beside(self._interrupted(slot))

    def _leave_dead_places(self) -> None:
        """A gang that was given a place on a node before Ray knew that it is gone would wait for
        it for ever and keep its other places; where it has begun, Ray Train ends it."""
        for worker_group in self._worker_groups:
            lost = any(member.node_id in self._dead_nodes for member in worker_group.members)
            if lost and not worker_group.leaving:
                worker_group.leaving = True
                self._run_beside(self._recalled(worker_group))

    async def _recalled(self, worker_group: Slot) -> None:
        with contextlib.suppress(*host_gone()):  # as in `_interrupted`
            await self._starts.recall_group(worker_group)

    async def _interrupted(self, slot: Slot) -> None:
        with contextlib.suppress(*host_gone()):  # whoever waits for its events is told as well
            await self._starts.interrupt(slot)

    async def _is_handed_over(self, slot: Slot, need: ResourceRequest) -> bool:
        """Whether the host lives; its node may have been lost a moment ago."""
        if slot.members:
            return True  # it comes up by and by; whoever starts the trial there waits for it
        try:
            await self._starts.hand_over(slot, need)
        except host_gone():
            return False
        return True

    def _log(self, trouble: str) -> None:
        if trouble not in self._said:
            self._said.add(trouble)
            self._troubles.append(trouble)


def _nodes_to_leave() -> tuple[set[str], set[str]]:
    """Those that are about to be taken away, and those that are gone."""
    return draining_nodes(), dead_nodes()


def start_host_scheduler(
    name: str,
    shape: HostShape,
    *,
    provenance: dict[str, str],
    sharing: SharingPolicy | None = None,
    python: str | None = None,
) -> Any:
    """Admission as a Ray actor that takes no CPU of its own and is found by its name.

    It lives on the head node: without that there is no cluster, while others come and go.
    """
    import ray

    actor = ray.remote(HostScheduler).options(
        name=name, num_cpus=0, max_concurrency=1000, resources={"node:__internal_head__": 0.001}
    )
    return actor.remote(shape, provenance, sharing or SharingPolicy(), python)
