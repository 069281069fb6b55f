"""GroupPlaces: the slots that a worker group takes from idle hosts, and gives back when it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from orchestrator.cluster.hosts.devices import RESERVED, Device, Slot
from orchestrator.cluster.hosts.host_pool import HostPool
from orchestrator.cluster.hosts.placement import Placement, QueueEntry

VACANT_SECONDS = 2.0  # for which the places of a worker group are kept for the next one


@dataclass
class GroupPlaces:
    """The worker groups of a sweep and their places.

    While a worker group runs, its places have no host. Afterwards they are vacant: the next worker
    group may take them, for instance one that has lost a worker and is retried at once. Those that
    are still vacant after VACANT_SECONDS get hosts again.
    """

    pool: HostPool
    groups: list[Slot] = field(default_factory=list)
    dead_nodes: set[str] = field(default_factory=set)  # ids
    _vacant: list[Slot] = field(default_factory=list)
    _owed: list[bool] = field(default_factory=list)  # starts to repeat; whether one was overdue

    @property
    def owed(self) -> int:
        """How many hosts will be requested when no worker group runs, but for overdue ones."""
        return self._owed.count(False)

    def start(self, entry: QueueEntry, placement: Placement) -> None:
        """Starts a worker group in the places of idle hosts, and gives it to the trial.

        Requests for hosts are cancelled, because they could take what the workers need in Ray; they
        are repeated when no worker group runs.
        """
        for slot in placement.evicted:
            self.pool.actors.end(slot)
        self._owed += self.pool.cancel_requests()
        self._start_in(placement.members, entry)

    def start_in_vacant(self, line: list[QueueEntry]) -> None:
        """Takes worker groups from the front of the line, as long as there are places for them."""
        vacant = [slot for slot in self._vacant if slot.node_id not in self.dead_nodes]
        while line and 0 < line[0].need.workers <= len(vacant):
            entry = line.pop(0)
            if not entry.future.done():
                workers = entry.need.workers
                members, vacant = tuple(vacant[:workers]), vacant[workers:]
                self._vacant = [slot for slot in self._vacant if slot not in members]
                self._start_in(members, entry)

    def end(self, worker_group: Slot) -> None:
        """Ends a worker group; its places are vacant."""
        self.groups.remove(worker_group)
        self.pool.actors.end_group(worker_group)
        for member in worker_group.members:
            member.trial_id = RESERVED
        self._vacant += worker_group.members
        self.pool.run_in_background(self._refill(worker_group.members))

    def leave_dead_nodes(self) -> None:
        """Interrupts worker groups with a place on a dead node whose workers have not started.

        Such a group got the place before Ray knew that the node was dead: it would wait for it for
        ever and keep its other places. Ray Train ends those that have started.
        """
        for worker_group in self.groups:
            is_lost = any(member.node_id in self.dead_nodes for member in worker_group.members)
            if is_lost and not worker_group.leaving:
                worker_group.leaving = True
                self.pool.run_in_background(self.pool.actors.cancel_unstarted_group(worker_group))

    def _start_in(self, members: tuple[Slot, ...], entry: QueueEntry) -> None:
        actors = self.pool.actors
        for member in members:
            actors.reserve_for_worker(member, entry.trial_id, entry.need)
        shared = any(member.device.is_shared_beside(members, entry.need) for member in members)
        actor = actors.start_group(entry.need, device_shared=shared)
        worker_group = Slot(Device(), actor, trial_id=entry.trial_id, members=members)
        self.groups.append(worker_group)
        entry.resolve(worker_group)

    async def _refill(self, members: tuple[Slot, ...]) -> None:
        """Requests hosts for the places that are still vacant, and those that are owed."""
        await asyncio.sleep(VACANT_SECONDS)
        vacant = [member for member in members if member in self._vacant]
        for member in vacant:
            self._vacant.remove(member)
            self.pool.remove(member)
        overdue = [False for _ in vacant]
        if not self.groups:
            overdue, self._owed = overdue + self._owed, []
        for is_overdue in overdue:
            self.pool.start_host(is_overdue=is_overdue)
