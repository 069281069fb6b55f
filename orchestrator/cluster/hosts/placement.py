"""Placement: which waiting trial starts next, and on which host. Nothing here uses Ray.

A trial requests bytes of one device, a device alone, or several devices. Trials start first come,
first served, with two exceptions. A free host goes to a trial that uses the base it has loaded,
even if the first in line waits for any host; the first is skipped at most MAX_SKIPS times. And if
the first needs more than a free host, the others may not start on as many devices as it needs, the
least busy ones. So no trial starves, except one that needs devices that were lost: it waits until
they are back, and reserves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.hosts.devices import Device, ResourceRequest, Slot

MAX_SKIPS = 3  # then the first in line gets the next host, whatever base that has loaded


@dataclass(eq=False)
class QueueEntry:
    """A trial that waits in line for a slot.

    `skipped`: how often another trial went first. `holds`: the devices that are reserved for it.
    """

    trial_id: str
    base_key: str
    need: ResourceRequest = field(default_factory=ResourceRequest)
    future: Any = None  # of the slot
    skipped: int = 0
    needs_room: bool = False  # a host was free, but had too little memory
    holds: tuple[Device, ...] = ()

    def resolve(self, slot: Slot | None) -> None:
        """Returns the slot to the caller that waits, if it still does."""
        if not self.future.done():
            self.future.set_result(slot)


@dataclass(frozen=True)
class Availability:
    """How many hosts are being started (`coming`), and how many the sweep wants (`expected`)."""

    coming: int = 0
    expected: int = 0

    def is_short(self, devices: Iterable[Device], need: ResourceRequest) -> bool:
        """Whether a worker group cannot start because expected devices are missing."""
        available = _max_workers(devices) + self.coming
        return available < min(need.workers, self.expected)


@dataclass(frozen=True)
class Placement:
    """Where a trial can start now: on a free host, or on one to be started (`slot` is None).

    `evicted`: idle hosts of the device that must give up their memory first. `members`: the slots
    that the workers of a worker group take.
    """

    device: Device
    slot: Slot | None
    evicted: tuple[Slot, ...] = ()
    members: tuple[Slot, ...] = ()


def next_start(
    line: Sequence[QueueEntry], devices: Sequence[Device], availability: Availability | None = None
) -> tuple[QueueEntry, Placement] | None:
    """Returns the next trial to start and where, or None. Call it until it returns None."""
    availability = availability or Availability()
    line = [entry for entry in line if not availability.is_short(devices, entry.need)]
    if not line:
        return None
    first = line[0]
    placement = _placement(devices, first, growing=availability.coming > 0)
    if placement is not None:
        return _base_match(line, devices) or (first, placement)
    first.needs_room |= any(device.has_host for device in devices)
    first.holds = _reserved_devices(first, devices)
    others = [device for device in devices if device not in first.holds]
    single = [entry for entry in line[1:] if not entry.need.workers]  # groups start only as first
    return next(_placed(single, others), None)


def best_placement(devices: Iterable[Device], entry: QueueEntry) -> Placement | None:
    """The best place where a trial without workers can start now, or None.

    In this order: a free host with its base; one without a base, on the least busy device; the one
    that is idle for longest; only if no host is free, a new one on a device that it would share.
    """
    able = _large_enough(devices, entry.need)
    found = [placement for device in able for placement in _placements(device, entry.need)]
    return min(found, key=lambda placement: _preference(placement, entry.base_key), default=None)


def _placement(devices: Iterable[Device], entry: QueueEntry, *, growing: bool) -> Placement | None:
    if entry.need.workers:
        return _group_placement(devices, entry.need, growing=growing)
    return best_placement(devices, entry)


def _large_enough(devices: Iterable[Device], need: ResourceRequest) -> list[Device]:
    """The devices whose capacity is at least the request; all of them if there is none."""
    staying = [device for device in devices if not device.leaving]
    large = [d for d in staying if (d.capacity_bytes or math.inf) >= (need.memory_bytes or 0)]
    return large or staying


def _placements(device: Device, need: ResourceRequest) -> Iterator[Placement]:
    idle = [slot for slot in device.slots if slot.free]
    for slot in idle:
        evicted = device.evicted(need, keep=slot)
        if evicted is not None:
            yield Placement(device, slot, tuple(evicted))
    if device.can_grow and device.evicted(need, keep=None) == []:
        yield Placement(device, None)


def _preference(placement: Placement, base_key: str) -> tuple[object, ...]:
    slot, busy = placement.slot, len(placement.device.running)
    if slot is None:
        return (True, 0, True, True, busy, 0)
    kept = slot.base_key is not None
    has_base = slot.base_key == base_key
    return (False, len(placement.evicted), not has_base, kept, busy, slot.idle_since)


def _base_match(
    line: Sequence[QueueEntry], devices: Sequence[Device]
) -> tuple[QueueEntry, Placement] | None:
    """The first trial whose base a free host has loaded, unless the first in line must start."""
    first = line[0]
    if first.needs_room or first.skipped >= MAX_SKIPS:
        return None
    bases = {slot.base_key for device in devices for slot in device.slots if slot.free}
    waiting = [entry for entry in line if entry.base_key in bases and not entry.need.workers]
    for entry, placement in _placed(waiting, devices):
        if placement.slot is not None and placement.slot.base_key == entry.base_key:
            first.skipped += entry is not first
            return entry, placement
    return None


def _placed(
    line: Iterable[QueueEntry], devices: Collection[Device]
) -> Iterator[tuple[QueueEntry, Placement]]:
    """The trials that can start now, in the order of the line."""
    for entry in line:
        placement = best_placement(devices, entry)
        if placement is not None:
            yield entry, placement


def _group_placement(
    devices: Iterable[Device], need: ResourceRequest, *, growing: bool
) -> Placement | None:
    """A slot for each worker, or all that the sweep has: Ray may find the other devices elsewhere.

    `growing`: hosts are being started, so that it may get more slots later.
    """
    staying = [device for device in devices if not device.leaving]
    members = [slot for device in staying for slot in device.for_workers(need)]
    wanted = need.workers if growing else min(need.workers, _max_workers(staying))
    if not members or len(members) < wanted:
        return None
    chosen = members[:wanted]
    on_gpus = [slot.device for slot in chosen if not slot.device.is_node]
    others = [slot for device in on_gpus for slot in device.slots if slot not in chosen]
    return Placement(chosen[0].device, None, evicted=tuple(others), members=tuple(chosen))


def _max_workers(devices: Iterable[Device]) -> int:
    """How many workers of a worker group fit on the devices when nothing runs on them."""
    return sum(device.max_workers for device in devices if not device.leaving)


def _reserved_devices(first: QueueEntry, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The devices on which no other trial starts until the first in line does: the least busy ones.

    Devices that were reserved for it before stay reserved.
    """
    able = _large_enough(devices, first.need)
    held = [device for device in first.holds if device in able]
    for device in sorted(able, key=_load):
        enough = sum(each.max_workers for each in held) >= max(1, first.need.workers)
        if not enough and device not in held:
            held.append(device)
    return tuple(held)


def _load(device: Device) -> tuple[int, int]:
    """The bytes that running trials have reserved on a device, and how many trials run there."""
    shares = [device.share_bytes(slot.need) for slot in device.running]
    whole = device.capacity_bytes or 0
    return sum(whole if share is None else share for share in shares), len(shares)
