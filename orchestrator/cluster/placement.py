"""Placement: which waiting trial starts next, and on which host. It knows nothing of Ray.

A trial asks for bytes of one device, for a device alone, or for several devices. First come, first
served, but for two things: a host that comes free goes to a trial that waits for its base, past a
first in line that waits for a host only, at most MAX_SKIPS times; and a first in line
that waits for more holds back the others on as many devices as it needs, the least busy ones.
Nothing starves but what needs devices that were lost: it waits until they are back, and holds
back nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.devices import Device, ResourceRequest, Slot

MAX_SKIPS = 3  # then the first in line gets the next host, whatever it holds


@dataclass(eq=False)
class QueueEntry:
    """A trial's place in line, how often another one went past it, and where it holds back."""

    trial_id: str
    base_key: str
    need: ResourceRequest = field(default_factory=ResourceRequest)
    future: Any = None  # of its slot
    skipped: int = 0
    needs_room: bool = False  # a host was there, and that was not enough
    holds: tuple[Device, ...] = ()

    def resolve(self, slot: Slot | None) -> None:
        """Returns the slot to the caller that waits, if it still does."""
        if not self.future.done():
            self.future.set_result(slot)


@dataclass(frozen=True)
class Availability:
    """How many devices there are to be, of `expected` that the sweep is to have, when those are up
    that are `coming`."""

    coming: int = 0
    expected: int = 0

    def is_short(self, devices: Iterable[Device], need: ResourceRequest) -> bool:
        """Whether a gang can't start because devices are missing that should be there."""
        there_are = _most_workers(devices) + self.coming
        return there_are < min(need.workers, self.expected)


@dataclass(frozen=True)
class Placement:
    """Where a trial can start now: on a free host, or on one to be started (`slot` is None).

    `evicted`: idle hosts of the device that have to give their memory up first. `members`: the
    hosts whose places a gang's workers take.
    """

    device: Device
    slot: Slot | None
    evicted: tuple[Slot, ...] = ()
    members: tuple[Slot, ...] = ()


def next_start(
    line: Sequence[QueueEntry], devices: Sequence[Device], supply: Availability | None = None
) -> tuple[QueueEntry, Placement] | None:
    """Who of those that wait starts now, and where; None: nobody can.

    It counts on being asked again until it says None.
    """
    supply = supply or Availability()
    line = [place for place in line if not supply.is_short(devices, place.need)]
    if not line:
        return None
    first = line[0]
    placement = _placement(devices, first, growing=supply.coming > 0)
    if placement is not None:
        return _one_with_a_base(line, devices) or (first, placement)
    first.needs_room |= any(device.has_host for device in devices)
    first.holds = _held_back(first, devices)
    others = [device for device in devices if device not in first.holds]
    hosts = [place for place in line[1:] if not place.need.workers]  # a gang waits to be first
    return next(_placed(hosts, others), None)


def best_placement(devices: Iterable[Device], place: QueueEntry) -> Placement | None:
    """A free host with its base; else one without any, on the least busy device; else the one idle
    for longest; and only where no host is free, a new one on a device that it would share.
    """
    able = _able(devices, place.need)
    found = [placement for device in able for placement in _placements(device, place.need)]
    return min(found, key=lambda placement: _preference(placement, place.base_key), default=None)


def _placement(devices: Iterable[Device], place: QueueEntry, *, growing: bool) -> Placement | None:
    if place.need.workers:
        return _group_placement(devices, place.need, growing=growing)
    return best_placement(devices, place)


def _able(devices: Iterable[Device], need: ResourceRequest) -> list[Device]:
    """The devices that are as large as the need; all of them if none is."""
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


def _one_with_a_base(
    line: Sequence[QueueEntry], devices: Sequence[Device]
) -> tuple[QueueEntry, Placement] | None:
    """Who waits for the base of a free host; past the first in line only so often."""
    first = line[0]
    if first.needs_room or first.skipped >= MAX_SKIPS:
        return None
    bases = {slot.base_key for device in devices for slot in device.slots if slot.free}
    waiting = [place for place in line if place.base_key in bases and not place.need.workers]
    for place, placement in _placed(waiting, devices):
        if placement.slot is not None and placement.slot.base_key == place.base_key:
            first.skipped += place is not first
            return place, placement
    return None


def _placed(
    line: Iterable[QueueEntry], devices: Collection[Device]
) -> Iterator[tuple[QueueEntry, Placement]]:
    """Those that can start now, in the order of the line."""
    for place in line:
        placement = best_placement(devices, place)
        if placement is not None:
            yield place, placement


def _group_placement(
    devices: Iterable[Device], need: ResourceRequest, *, growing: bool
) -> Placement | None:
    """A device for each of its workers, or all there are: Ray may find the others elsewhere."""
    staying = [device for device in devices if not device.leaving]
    members = [slot for device in staying for slot in device.for_workers(need)]
    wanted = need.workers if growing else min(need.workers, _most_workers(staying))
    if not members or len(members) < wanted:
        return None
    chosen = members[:wanted]
    on_gpus = [slot.device for slot in chosen if not slot.device.is_node]
    others = [slot for device in on_gpus for slot in device.slots if slot not in chosen]
    return Placement(chosen[0].device, None, evicted=tuple(others), members=tuple(chosen))


def _most_workers(devices: Iterable[Device]) -> int:
    """How many of a gang's workers they could take if nothing ran on them."""
    return sum(device.most_workers for device in devices if not device.leaving)


def _held_back(first: QueueEntry, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The devices on which nobody else starts until the first in line does: the least busy ones.

    They stay the same for as long as they are there.
    """
    able = _able(devices, first.need)
    held = [device for device in first.holds if device in able]
    for device in sorted(able, key=_busy):
        enough = sum(each.most_workers for each in held) >= max(1, first.need.workers)
        if not enough and device not in held:
            held.append(device)
    return tuple(held)


def _busy(device: Device) -> tuple[int, int]:
    shares = [device.share_bytes(slot.need) for slot in device.running]
    whole = device.capacity_bytes or 0
    return sum(whole if share is None else share for share in shares), len(shares)
