"""Placement: which waiting trial starts next, and on which host. It knows nothing of Ray.

A trial asks for bytes of one device, for a device alone, or for several devices. First come, first
served, but for two things: a host that comes free goes to a trial that waits for its base, past a
first in line that waits for a host only, at most PASSED_OVER_AT_MOST times; and a first in line
that waits for more holds back the others on as many devices as it needs, the least busy ones.
Nothing starves but what needs devices that were lost: it waits until they are back, and holds
back nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PASSED_OVER_AT_MOST = 3  # then the first in line gets the next host, whatever it holds
# Assumed: what torch's allocator holds above what its tensors take, in pieces of the wrong size.
FRAGMENTATION = 0.1


@dataclass(frozen=True)
class Need:
    """What a trial asks for: so many bytes of a device (None: not known), or a device alone.

    `workers`: it is trained by so many processes together, each with a device; 0: by a host.
    """

    memory_bytes: int | None = None
    exclusive: bool = False
    workers: int = 0

    @classmethod
    def of(
        cls, prediction: Mapping[str, Any] | None, *, exclusive: bool = False, workers: int = 0
    ) -> Need:
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
    need: Need = field(default_factory=Need)
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

    def share_bytes(self, need: Need) -> int | None:
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

    def is_shared(self, need: Need) -> bool:
        """Whether other trials may compute on it while one with this need does."""
        if self.is_part:
            return True
        if self.is_node:
            return len(self.slots) > 1 and not need.exclusive
        return self.most_hosts > 1 and self.share_bytes(need) is not None

    def is_shared_beside(self, members: Sequence[Slot], need: Need) -> bool:
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

    def for_workers(self, need: Need) -> list[Slot]:
        """The idle hosts whose place workers with this need can take now."""
        idle = [slot for slot in self.slots if slot.free]
        if not self.is_node:
            return [] if self.running else idle[:1]
        shares = [self.share_bytes(slot.need) for slot in self.running]
        each = self.share_bytes(Need(need.memory_bytes))
        if None in shares or (shares and (each is None or need.exclusive)):
            return []
        if not shares or not each or self.capacity_bytes is None:
            return idle
        return idle[: max(0, self.capacity_bytes - sum(filter(None, shares))) // each]

    def giving_way(self, need: Need, *, keep: Slot | None) -> list[Slot] | None:
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

    def _fits(self, need: Need, *, beside: Sequence[Slot]) -> bool:
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


@dataclass(eq=False)
class Place:
    """A trial's place in line, how often another one went past it, and where it holds back."""

    trial_id: str
    base_key: str
    need: Need = field(default_factory=Need)
    given: Any = None  # a future of its slot
    passed_over: int = 0
    needs_room: bool = False  # a host was there, and that was not enough
    holds: tuple[Device, ...] = ()

    def answer(self, slot: Slot | None) -> None:
        if not self.given.done():
            self.given.set_result(slot)


@dataclass(frozen=True)
class Supply:
    """How many devices there are to be, of `expected` that the sweep is to have, when those are up
    that are `coming`."""

    coming: int = 0
    expected: int = 0

    def is_short(self, devices: Iterable[Device], need: Need) -> bool:
        """Whether a gang can't start because devices are missing that should be there."""
        there_are = _most_workers(devices) + self.coming
        return there_are < min(need.workers, self.expected)


@dataclass(frozen=True)
class Placing:
    """Where a trial can start now: on a free host, or on one to be started (`slot` is None).

    `giving_way`: idle hosts of the device that have to give their memory up first. `members`: the
    hosts whose places a gang's workers take.
    """

    device: Device
    slot: Slot | None
    giving_way: tuple[Slot, ...] = ()
    members: tuple[Slot, ...] = ()


def next_start(
    line: Sequence[Place], devices: Sequence[Device], supply: Supply | None = None
) -> tuple[Place, Placing] | None:
    """Who of those that wait starts now, and where; None: nobody can.

    It counts on being asked again until it says None.
    """
    supply = supply or Supply()
    line = [place for place in line if not supply.is_short(devices, place.need)]
    if not line:
        return None
    first = line[0]
    placing = _placing(devices, first, growing=supply.coming > 0)
    if placing is not None:
        return _one_with_a_base(line, devices) or (first, placing)
    first.needs_room |= any(device.has_host for device in devices)
    first.holds = _held_back(first, devices)
    others = [device for device in devices if device not in first.holds]
    hosts = [place for place in line[1:] if not place.need.workers]  # a gang waits to be first
    return next(_placed(hosts, others), None)


def best_placing(devices: Iterable[Device], place: Place) -> Placing | None:
    """A free host with its base; else one without any, on the least busy device; else the one idle
    for longest; and only where no host is free, a new one on a device that it would share.
    """
    able = _able(devices, place.need)
    found = [placing for device in able for placing in _placings(device, place.need)]
    return min(found, key=lambda placing: _order(placing, place.base_key), default=None)


def _placing(devices: Iterable[Device], place: Place, *, growing: bool) -> Placing | None:
    if place.need.workers:
        return _gang_placing(devices, place.need, growing=growing)
    return best_placing(devices, place)


def _able(devices: Iterable[Device], need: Need) -> list[Device]:
    """The devices that are as large as the need; all of them if none is."""
    staying = [device for device in devices if not device.leaving]
    large = [d for d in staying if (d.capacity_bytes or math.inf) >= (need.memory_bytes or 0)]
    return large or staying


def _placings(device: Device, need: Need) -> Iterator[Placing]:
    idle = [slot for slot in device.slots if slot.free]
    for slot in idle:
        giving_way = device.giving_way(need, keep=slot)
        if giving_way is not None:
            yield Placing(device, slot, tuple(giving_way))
    if device.can_grow and device.giving_way(need, keep=None) == []:
        yield Placing(device, None)


def _order(placing: Placing, base_key: str) -> tuple[object, ...]:
    slot, busy = placing.slot, len(placing.device.running)
    if slot is None:
        return (True, 0, True, True, busy, 0)
    kept = slot.base_key is not None
    has_base = slot.base_key == base_key
    return (False, len(placing.giving_way), not has_base, kept, busy, slot.idle_since)


def _one_with_a_base(
    line: Sequence[Place], devices: Sequence[Device]
) -> tuple[Place, Placing] | None:
    """Who waits for the base of a free host; past the first in line only so often."""
    first = line[0]
    if first.needs_room or first.passed_over >= PASSED_OVER_AT_MOST:
        return None
    bases = {slot.base_key for device in devices for slot in device.slots if slot.free}
    waiting = [place for place in line if place.base_key in bases and not place.need.workers]
    for place, placing in _placed(waiting, devices):
        if placing.slot is not None and placing.slot.base_key == place.base_key:
            first.passed_over += place is not first
            return place, placing
    return None


def _placed(line: Iterable[Place], devices: Collection[Device]) -> Iterator[tuple[Place, Placing]]:
    """Those that can start now, in the order of the line."""
    for place in line:
        placing = best_placing(devices, place)
        if placing is not None:
            yield place, placing


def _gang_placing(devices: Iterable[Device], need: Need, *, growing: bool) -> Placing | None:
    """A device for each of its workers, or all there are: Ray may find the others elsewhere."""
    staying = [device for device in devices if not device.leaving]
    members = [slot for device in staying for slot in device.for_workers(need)]
    wanted = need.workers if growing else min(need.workers, _most_workers(staying))
    if not members or len(members) < wanted:
        return None
    chosen = members[:wanted]
    on_gpus = [slot.device for slot in chosen if not slot.device.is_node]
    others = [slot for device in on_gpus for slot in device.slots if slot not in chosen]
    return Placing(chosen[0].device, None, giving_way=tuple(others), members=tuple(chosen))


def _most_workers(devices: Iterable[Device]) -> int:
    """How many of a gang's workers they could take if nothing ran on them."""
    return sum(device.most_workers for device in devices if not device.leaving)


def _held_back(first: Place, devices: Sequence[Device]) -> tuple[Device, ...]:
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
