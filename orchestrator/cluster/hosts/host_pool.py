"""HostPool: the hosts of a sweep; starts them, and replaces those that die or whose node goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.hosts.devices import Device, Slot
from orchestrator.cluster.hosts.host_actors import HostActors
from orchestrator.cluster.nodes import host_gone

START_ATTEMPTS = 3
OVERDUE_AFTER_SECONDS = 300.0  # a host that an autoscaler has to start a node for takes minutes


@dataclass
class HostPool:
    """The devices of a sweep with their hosts, and the hosts that are being started.

    `on_change` is called when a host is up or could not be started; `on_failure` then gets the
    error if there is one. All methods run in the event loop of the scheduler.
    """

    actors: HostActors
    on_change: Callable[[], None]
    on_failure: Callable[[BaseException], None]
    devices: list[Device] = field(default_factory=list)
    _starts: set[asyncio.Task[None]] = field(default_factory=set)
    _requests: set[asyncio.Task[None]] = field(default_factory=set)  # starts on new devices
    _overdue: set[asyncio.Task[None]] = field(default_factory=set)  # requests
    _background: set[asyncio.Task[None]] = field(default_factory=set)
    _clock: int = 0

    async def open(self) -> dict[str, Any]:
        """Starts all hosts; returns the description of the first one's device.

        Raises the error of a host that cannot be started before one is up.
        """
        for _ in range(self.actors.shape.count):
            self.start_host()
        while self.actors.description is None:
            done, _ = await asyncio.wait(self._starts, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        return self.actors.description

    def up(self) -> list[Slot]:
        """The slots whose host is up."""
        slots = [slot for device in self.devices for slot in device.slots]
        return [slot for slot in slots if slot.actor is not None]

    @property
    def starting(self) -> int:
        """How many hosts are being started."""
        return len(self._starts)

    @property
    def coming(self) -> int:
        """How many hosts on new devices may still be expected soon."""
        return len(self._requests - self._overdue)

    def start_host(self, *, is_overdue: bool = False) -> None:
        """Starts a host on a new device, as soon as Ray has resources for it."""
        task = self.start(self._start_on_new_device())
        self._requests.add(task)
        if is_overdue:
            self._overdue.add(task)
        loop = asyncio.get_running_loop()
        loop.call_later(OVERDUE_AFTER_SECONDS, self._mark_overdue, task)

    async def start_in(self, slot: Slot) -> None:
        """Starts a further host on a device; if that fails the slot is removed.

        The device then counts as full. `add` the slot afterwards.
        """
        try:
            await self.actors.start(slot)
        finally:
            if slot.actor is None:
                device = slot.device
                device.slots.remove(slot)
                device.max_hosts = max(1, len(device.slots))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs what starts a host; it counts as `starting` until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._starts.add(task)
        task.add_done_callback(self._on_start_done)
        return task

    def add(self, slot: Slot) -> None:
        """Adds a slot whose host has just come up."""
        if slot.device not in self.devices:
            self.devices.append(slot.device)
        self.run_in_background(self._replace_on_death(slot))
        self.on_change()

    def set_idle(self, slot: Slot) -> None:
        """Marks a host as idle; one whose node is being taken away is replaced."""
        if slot.leaving:
            self.replace(slot)
            return
        slot.trial_id = None
        self._clock += 1
        slot.idle_since = self._clock

    def replace(self, slot: Slot) -> None:
        """Ends a host; starts another one unless its device still has one."""
        device = slot.device
        self.actors.end(slot)
        if any(other.actor is not None for other in device.slots) and not device.is_node:
            return
        if not device.is_node or not device.slots:
            self.devices.remove(device)
        self.start_host()

    def cancel_requests(self) -> list[bool]:
        """Cancels the starts of hosts on new devices; returns for each whether it was overdue."""
        overdue = [task in self._overdue for task in self._requests]
        for task in self._requests:
            task.cancel()
        self._requests.clear()
        return overdue

    def remove(self, slot: Slot) -> None:
        """Removes a slot without a host, and its device if it was the last one there."""
        device = slot.device
        device.slots.remove(slot)
        if device in self.devices and not device.slots:
            self.devices.remove(device)

    def leave_nodes(self, node_ids: Collection[str]) -> None:
        """Replaces the hosts on these nodes: idle ones now, others when their trial has saved."""
        for slot in [slot for slot in self.up() if slot.node_id in node_ids]:
            slot.device.leaving = True
            if slot.trial_id is None:
                self.replace(slot)
            elif not slot.leaving:
                slot.leaving = True
                self.run_in_background(self.actors.interrupt(slot))

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine as a task; keeps a reference, which the event loop does not."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _start_on_new_device(self) -> None:
        """Starts a host; one whose node dies meanwhile is started again."""
        for attempt in range(START_ATTEMPTS):
            try:
                slot = await self.actors.start_on_new_device()
            except host_gone():
                if attempt == START_ATTEMPTS - 1:
                    raise
            else:
                self._requests -= {asyncio.current_task()}
                self.add(slot)
                return

    def _mark_overdue(self, request: asyncio.Task[None]) -> None:
        if request in self._requests:
            self._overdue.add(request)
            self.on_change()

    def _on_start_done(self, task: asyncio.Task[None]) -> None:
        for tasks in (self._starts, self._requests, self._overdue):
            tasks.discard(task)
        self.on_change()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.on_failure(error)

    async def _replace_on_death(self, slot: Slot) -> None:
        """Replaces a host that dies while it is idle; `TuneTrial` replaces the one of its trial."""
        try:
            await self.actors.until_death(slot)
        except host_gone():
            if slot in self.up() and slot.trial_id is None:
                self.replace(slot)
