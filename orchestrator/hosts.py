"""Admission: the one place that decides which trial runs on which host.

Hosts (trainables/host.py) are Ray actors that hold the accelerator. As many as the cluster has
room for are started with the sweep and kept; a trial is given a free host that already holds its
base where there is one. First come, first served, but for this: a host that comes free goes to a
trial that waits for its base, past the first in line, at most PASSED_OVER_AT_MOST times.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from orchestrator.host_shape import HostShape

BRING_UP_ATTEMPTS = 3
PASSED_OVER_AT_MOST = 3  # then the first in line gets the next host, whatever it holds
SECONDS_BETWEEN_LOOKS = 2.0  # at which nodes are about to be taken away


@dataclass(eq=False)
class _Slot:
    """One host: its actor and node, the base it holds, the trial it runs."""

    actor: Any
    node_id: str = ""
    base_key: str | None = None
    trial_id: str | None = None
    idle_since: int = 0
    leaving: bool = False  # its node is being taken away

    @property
    def free(self) -> bool:
        return self.trial_id is None and not self.leaving


@dataclass(eq=False)
class _Place:
    """A trial's place in line, and how often another one went past it."""

    trial_id: str
    base_key: str
    given: asyncio.Future[_Slot | None]
    passed_over: int = 0

    def answer(self, slot: _Slot | None) -> None:
        if not self.given.done():
            self.given.set_result(slot)


@dataclass
class Admission:
    """An async Ray actor (see `start_admission`); every method is safe to call concurrently.

    Hosts that die, or whose node is lost or about to be taken away, are replaced by new ones where
    Ray finds room; until it does the others serve.
    """

    shape: HostShape
    provenance: dict[str, str]
    _ready: list[_Slot] = field(default_factory=list)
    _waiting: deque[_Place] = field(default_factory=deque)
    _starting: set[asyncio.Task[None]] = field(default_factory=set)
    _watching: set[asyncio.Task[None]] = field(default_factory=set)
    _clock: int = 0
    _ending: bool = False
    _description: dict[str, Any] | None = None

    async def open(self) -> dict[str, Any]:
        """Starts all hosts; returns the first one's description of its device."""
        for _ in range(self.shape.count):
            self._start_host()
        while self._description is None:
            done, _ = await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        self._keep(self._leave_draining_nodes())
        return self._description

    async def acquire(self, trial_id: str, base_key: str) -> Any:
        """A free host for the trial, waiting in line for one; `release` gives it back.

        None once the sweep ends (see `interrupt`).
        """
        while not self._ending:
            slot = await self._take(trial_id, base_key)
            if slot is None:
                return None
            if await self._answers(slot):
                slot.base_key = base_key
                return slot.actor
            self.replace(trial_id)  # it died while nobody looked; that is no fault of the trial
        return None

    def release(self, trial_id: str) -> None:
        """The trial has left its host, which is free for the next; unknown trials are ignored."""
        for slot in [slot for slot in self._ready if slot.trial_id == trial_id]:
            slot.trial_id = None
            self._clock += 1
            slot.idle_since = self._clock
            if slot.leaving:
                self._replace(slot)
        self._serve()

    def replace(self, trial_id: str) -> None:
        """The trial's host is of no use any more: it is ended, and another started in its place."""
        for slot in [slot for slot in self._ready if slot.trial_id == trial_id]:
            self._replace(slot)

    async def interrupt(self) -> None:
        """The sweep ends: running trials save a checkpoint and leave; none is given a host.

        Returns when all checkpoints are written.
        """
        self._ending = True
        while self._waiting:
            self._waiting.popleft().answer(None)
        busy = [self._interrupted(slot) for slot in self._ready if slot.trial_id is not None]
        await asyncio.gather(*busy, return_exceptions=True)

    def is_ending(self) -> bool:
        """Whether `interrupt` was called, and not `reopen`."""
        return self._ending

    def reopen(self) -> None:
        """Hosts are given out again: the trials have ended, their report split has not."""
        self._ending = False

    def counts(self) -> tuple[int, int, int]:
        """How many hosts are up, how many are being started, and how many wait for one."""
        return len(self._ready), len(self._starting), len(self._waiting)

    def _replace(self, slot: _Slot) -> None:
        self._ready.remove(slot)
        self._end(slot)
        self._start_host()

    def _end(self, slot: _Slot) -> None:
        import ray

        ray.kill(slot.actor)

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
            if not place.given.done():
                place.given.set_exception(error)

    async def _bring_up(self) -> None:
        """A host, once Ray has found a place for it; one whose node dies meanwhile is retried."""
        for attempt in range(BRING_UP_ATTEMPTS):
            try:
                slot = await self._new_slot()
            except host_gone():
                if attempt == BRING_UP_ATTEMPTS - 1:
                    raise
            else:
                self._ready.append(slot)
                self._keep(self._notice_death(slot))
                self._serve()
                return

    async def _new_slot(self) -> _Slot:
        from trainables.host import Host

        shape = self.shape
        actor = Host.options(num_cpus=shape.cpus, num_gpus=shape.gpus).remote(self.provenance)
        description = await actor.warm_up.remote()
        if self._description is None:
            self._description = description
        return _Slot(actor, node_id=await actor.node_id.remote())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Lets something run beside; the loop alone would forget it."""
        task = asyncio.get_running_loop().create_task(work)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _notice_death(self, slot: _Slot) -> None:
        """Replaces a host that dies while it is free; a trial's proxy sees to its own."""
        try:
            await slot.actor.until_death.remote()
        except host_gone():
            if slot in self._ready and slot.trial_id is None:
                self._replace(slot)

    async def _leave_draining_nodes(self) -> None:
        """Moves trials off nodes that are about to be taken away, while there is time to save."""
        while True:
            draining = await asyncio.to_thread(draining_nodes)
            for slot in [slot for slot in self._ready if slot.node_id in draining]:
                if slot.trial_id is None:
                    self._replace(slot)
                elif not slot.leaving:
                    slot.leaving = True
                    self._keep(self._interrupted(slot))
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)

    async def _interrupted(self, slot: _Slot) -> None:
        with contextlib.suppress(*host_gone()):  # whoever waits for its events is told as well
            await slot.actor.interrupt.remote()

    async def _answers(self, slot: _Slot) -> bool:
        """Whether the host lives; its node may have been lost a moment ago."""
        try:
            await slot.actor.ping.remote()
        except host_gone():
            return False
        return True

    async def _take(self, trial_id: str, base_key: str) -> _Slot | None:
        """A free host, marked as the trial's; None if the sweep ends meanwhile."""
        if not self._ready and not self._starting:  # the last one died, and so did its successor
            self._start_host()
        free = [slot for slot in self._ready if slot.free]
        if not free or self._waiting:
            return await self._wait_in_line(trial_id, base_key)
        slot = self._best(free, base_key)
        slot.trial_id = trial_id
        return slot

    async def _wait_in_line(self, trial_id: str, base_key: str) -> _Slot | None:
        future: asyncio.Future[_Slot | None] = asyncio.get_running_loop().create_future()
        place = _Place(trial_id, base_key, future)
        self._waiting.append(place)
        try:
            return await future
        finally:
            if place in self._waiting:  # whoever waited has given up
                self._waiting.remove(place)

    def _serve(self) -> None:
        """Gives free hosts to those that wait."""
        while self._waiting:
            free = [slot for slot in self._ready if slot.free]
            if not free:
                return
            place = self._next_in_line({slot.base_key for slot in free})
            self._waiting.remove(place)
            if not place.given.done():
                slot = self._best(free, place.base_key)
                slot.trial_id = place.trial_id
                place.answer(slot)

    def _next_in_line(self, bases: set[str | None]) -> _Place:
        first = self._waiting[0]
        if first.passed_over >= PASSED_OVER_AT_MOST:
            return first
        chosen = next((place for place in self._waiting if place.base_key in bases), first)
        first.passed_over += chosen is not first
        return chosen

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
    """Admission as a Ray actor that takes no CPU of its own and is found by its name.

    It lives on the head node: without that there is no cluster, while others come and go.
    """
    import ray

    actor = ray.remote(Admission).options(
        name=name, num_cpus=0, max_concurrency=1000, resources={"node:__internal_head__": 0.001}
    )
    return actor.remote(shape, provenance)


def host_gone() -> tuple[type[Exception], ...]:
    """What Ray raises for a call to a host that is no more, or that it ended for its memory."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

    return (RayActorError, NodeDiedError, OutOfMemoryError)


def draining_nodes() -> set[str]:
    """Ids of the nodes that take no more work because they are about to be taken away."""
    from ray._private.state import state  # the only place where Ray says so to programs

    return set(state.get_draining_nodes())
