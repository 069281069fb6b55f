"""Devices, their slots and the resources that a trial requests of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FRAGMENTATION = 0.1  # assumed: what torch's allocator reserves above the bytes of its tensors

RESERVED = ""  # the trial id of a slot that is kept for the next worker group


@dataclass(frozen=True)
class ResourceRequest:
    """What a trial requests: bytes of a device (None: unknown) or, if `exclusive`, all of it.

    `workers`: the number of processes that train it together, each on a device; 0: a host does.
    """

    memory_bytes: int | None = None
    exclusive: bool = False
    workers: int = 0

    @classmethod
    def of(
        cls, estimate: Mapping[str, Any] | None, *, exclusive: bool = False, workers: int = 0
    ) -> ResourceRequest:
        """The request of a trial with this memory estimate (`TrialFolder.estimate`)."""
        memory = (estimate or {}).get("device_memory_bytes")
        return cls(memory if isinstance(memory, int) else None, exclusive, workers)


@dataclass(eq=False)
class Slot:
    """One host: its actor and node, the base that it has loaded, the trial that it runs.

    `actor` is None until the host is up. An idle host holds `held_bytes` of its device. A worker
    group is a slot too, on an empty device; `members` are the slots that its workers have taken.
    """

    device: Device
    actor: Any = None
    node_id: str = ""
    base_key: str | None = None
    trial_id: str | None = None
    need: ResourceRequest = field(default_factory=ResourceRequest)
    held_bytes: int = 0
    idle_since: int = 0
    leaving: bool = False  # its node is about to be taken away, or is dead
    members: tuple[Slot, ...] = ()

    @property
    def free(self) -> bool:
        return self.trial_id is None and self.actor is not None and not self.leaving


@dataclass(eq=False)
class Device:
    """A GPU, or the memory of a node without GPUs, with the hosts on it.

    `memory_bytes`: its size; None: unknown. Each host's process takes `process_bytes` of it besides
    what trials need. `max_hosts`: the most hosts that are started on it to share it. `is_node`:
    the memory of a node, on which a trial of unknown size gets an even share. `is_part`: a fraction
    of a GPU, whose other fractions are devices too. `reserved`: its placement group in Ray.
    """

    memory_bytes: int | None = None
    process_bytes: int = 0
    max_hosts: int = 1
    is_node: bool = False
    is_part: bool = False
    slots: list[Slot] = field(default_factory=list)
    leaving: bool = False
    reserved: Any = None

    @property
    def capacity_bytes(self) -> int | None:
        """The bytes that trials can take; None: unknown."""
        if self.memory_bytes is None:
            return None
        return max(0, self.memory_bytes - self.process_bytes * len(self.slots))

    def share_bytes(self, need: ResourceRequest) -> int | None:
        """The bytes that are reserved for a trial; None: it needs the device alone."""
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
        """Whether other trials may compute on it beside a trial with this request."""
        if self.is_part:
            return True
        if self.is_node:
            return len(self.slots) > 1 and not need.exclusive
        return self.max_hosts > 1 and self.share_bytes(need) is not None

    def is_shared_beside(self, members: Sequence[Slot], need: ResourceRequest) -> bool:
        """Whether other trials may compute on it beside a worker group in these slots."""
        if not self.is_node:
            return self.is_part
        return not need.exclusive and any(slot not in members for slot in self.slots)

    @property
    def running(self) -> list[Slot]:
        """The slots that have a trial, or are reserved."""
        return [slot for slot in self.slots if slot.trial_id is not None]

    @property
    def can_grow(self) -> bool:
        """Whether a further host may be started on it, because none of its hosts is free."""
        return len(self.slots) < self.max_hosts and not any(slot.free for slot in self.slots)

    @property
    def has_host(self) -> bool:
        """Whether a trial could start on it now if it is small enough."""
        return self.can_grow or any(slot.free for slot in self.slots)

    @property
    def max_workers(self) -> int:
        """How many workers of a worker group fit on it when nothing runs on it."""
        return len(self.slots) if self.is_node else 1

    def for_workers(self, need: ResourceRequest) -> list[Slot]:
        """The idle hosts whose slots workers with this request can take now."""
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
        """The idle hosts but `keep` that must give up their memory so that the request fits.

        Returns None if it does not fit even then. Hosts that are idle for longest go first.
        """
        idle = [slot for slot in self.slots if slot.trial_id is None and slot is not keep]
        stay = sorted(idle, key=lambda slot: -slot.idle_since)
        while not self._fits(need, beside=stay):
            if not stay:
                return None
            stay.pop()
        return [slot for slot in idle if slot not in stay]

    def _fits(self, need: ResourceRequest, *, beside: Sequence[Slot]) -> bool:
        """Whether the request fits beside the running trials and these idle hosts."""
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
