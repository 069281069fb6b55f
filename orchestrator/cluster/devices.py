"""Devices and their slots: what placement counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Assumed: what torch's allocator holds above what its tensors take, in pieces of the wrong size.
FRAGMENTATION = 0.1

RESERVED = ""  # the trial id of a slot that is kept for the next worker group


@dataclass(frozen=True)
class ResourceRequest:
    """What a trial asks for: so many bytes of a device (None: not known), or a device alone.

    `workers`: it is trained by so many processes together, each with a device; 0: by a host.
    """

    memory_bytes: int | None = None
    exclusive: bool = False
    workers: int = 0

    @classmethod
    def of(
        cls, prediction: Mapping[str, Any] | None, *, exclusive: bool = False, workers: int = 0
    ) -> ResourceRequest:
        """What the trial of this prediction needs (TrialFolder.prediction)."""
        memory = (prediction or {}).get("device_memory_bytes")
        return cls(memory if isinstance(memory, int) else None, exclusive, workers)


@dataclass(eq=False)
class Slot:
    """One host: its actor and node, the base it holds, the trial it runs.

    While it is idle it holds `held_bytes` of its device. `actor` is None until it is up. A gang is
    one too, on a device that is none; `members` are the slots that its workers have taken.
    """

    device: Device
    actor: Any = None
    node_id: str = ""
    base_key: str | None = None
    trial_id: str | None = None
    need: ResourceRequest = field(default_factory=ResourceRequest)
    held_bytes: int = 0
    idle_since: int = 0
    leaving: bool = False  # its node is being taken away
    members: tuple[Slot, ...] = ()

    @property
    def free(self) -> bool:
        return self.trial_id is None and self.actor is not None and not self.leaving


@dataclass(eq=False)
class Device:
    """A GPU, or a node's memory where there is none, with the hosts on it.

    `memory_bytes`: what it has, None: not known; each host's process takes `process_bytes` of it
    besides what trials need. `most_hosts`: while a trial would share the device, hosts are started
    on it up to so many. `is_node`: a node with a host per trial; a trial whose bytes are not known
    gets an even share. `is_part`: a part of a device, whose other parts are given out as well.
    `reserved`: Ray's word for it.
    """

    memory_bytes: int | None = None
    process_bytes: int = 0
    most_hosts: int = 1
    is_node: bool = False
    is_part: bool = False
    slots: list[Slot] = field(default_factory=list)
    leaving: bool = False
    reserved: Any = None

    @property
    def capacity_bytes(self) -> int | None:
        """What there is for trials."""
        if self.memory_bytes is None:
            return None
        return max(0, self.memory_bytes - self.process_bytes * len(self.slots))

    def share_bytes(self, need: ResourceRequest) -> int | None:
        """What is set apart for a trial; None: it has the device to itself."""
        if need.exclusive:
            return None
        capacity = self.capacity_bytes
        if self.is_node and (capacity is None or need.memory_bytes is None):
            return (capacity or 0) // max(1, len(self.slots))
        if capacity is None or need.memory_bytes is None:
            return None
        wanted = math.ceil(need.memory_bytes * (1 + FRAGMENTATION))
        return wanted if wanted < capacity else None

    def is_shared(self, need: ResourceRequest) -> bool:
        """Whether other trials may compute on it while one with this need does."""
        if self.is_part:
            return True
        if self.is_node:
            return len(self.slots) > 1 and not need.exclusive
        return self.most_hosts > 1 and self.share_bytes(need) is not None

    def is_shared_beside(self, members: Sequence[Slot], need: ResourceRequest) -> bool:
        """As `is_shared`, while a gang with this need has these places."""
        if not self.is_node:
            return self.is_part
        return not need.exclusive and any(slot not in members for slot in self.slots)

    @property
    def running(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.trial_id is not None]

    @property
    def can_grow(self) -> bool:
        """Whether a further host may be started on it, and all that are there are taken."""
        return len(self.slots) < self.most_hosts and not any(slot.free for slot in self.slots)

    @property
    def has_host(self) -> bool:
        """Whether a trial that is small enough could start on it now."""
        return self.can_grow or any(slot.free for slot in self.slots)

    @property
    def most_workers(self) -> int:
        """How many of a gang's workers it could take if nothing ran on it."""
        return len(self.slots) if self.is_node else 1

    def for_workers(self, need: ResourceRequest) -> list[Slot]:
        """The idle hosts whose place workers with this need can take now."""
        idle = [slot for slot in self.slots if slot.free]
        if not self.is_node:
            return [] if self.running else idle[:1]
        shares = [self.share_bytes(slot.need) for slot in self.running]
        each = self.share_bytes(ResourceRequest(need.memory_bytes))
        if None in shares or (shares and (each is None or need.exclusive)):
            return []
        if not shares or not each or self.capacity_bytes is None:
            return idle
        return idle[: max(0, self.capacity_bytes - sum(filter(None, shares))) // each]

    def evicted(self, need: ResourceRequest, *, keep: Slot | None) -> list[Slot] | None:
        """The idle hosts, but for `keep`, that give their memory up so that the need fits.

        Those idle for longest come first. None: it doesn't fit whatever they do.
        """
        idle = [slot for slot in self.slots if slot.trial_id is None and slot is not keep]
        stay = sorted(idle, key=lambda slot: -slot.idle_since)
        while not self._fits(need, beside=stay):
            if not stay:
                return None
            stay.pop()
        return [slot for slot in idle if slot not in stay]

    def _fits(self, need: ResourceRequest, *, beside: Sequence[Slot]) -> bool:
        """Whether there is room next to what runs and these idle hosts."""
        shares = [self.share_bytes(slot.need) for slot in self.running]
        share = self.share_bytes(need)
        if share is None:
            in_the_way = [slot for slot in beside if slot.held_bytes or not self.is_node]
            return not shares and not in_the_way
        if None in shares:
            return False
        if self.capacity_bytes is None:
            return True
        taken = sum(filter(None, shares)) + sum(slot.held_bytes for slot in beside)
        return taken + share <= self.capacity_bytes
