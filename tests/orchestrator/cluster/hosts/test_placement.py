"""Placement: which trial fits on which device, the order of the queue, and no starvation."""

from __future__ import annotations

import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.hosts.devices import FRAGMENTATION, Device, ResourceRequest, Slot
from orchestrator.cluster.hosts.placement import (
    MAX_SKIPS,
    Availability,
    Placement,
    QueueEntry,
    best_placement,
    next_start,
)

ALONE = ResourceRequest(1, exclusive=True)
UNKNOWN = ResourceRequest()


def need(share_bytes: int) -> ResourceRequest:
    """A need for which so many bytes are set apart."""
    return ResourceRequest(math.floor(share_bytes / (1 + FRAGMENTATION)))


def gpu(
    *running: ResourceRequest, idle: int = 0, held_bytes: int = 5, max_hosts: int = 8
) -> Device:
    """A GPU of 100 bytes."""
    device = Device(100, max_hosts=max_hosts)
    slots = [
        Slot(device, f"busy {n}", trial_id=f"t{n}", need=each) for n, each in enumerate(running)
    ]
    for number in range(idle):
        slots.append(Slot(device, f"idle {number}", held_bytes=held_bytes, idle_since=number))
    device.slots = slots
    return device


def node(*running: ResourceRequest, idle: int = 0, held_bytes: int = 0) -> Device:
    """A machine with 100 bytes for trials, besides those of its hosts' processes."""
    device = gpu(*running, idle=idle, held_bytes=held_bytes, max_hosts=1)
    device.is_node = True
    device.process_bytes = 10
    device.memory_bytes = 100 + 10 * len(device.slots)
    return device


def placement(device: Device, wanted: ResourceRequest, base_key: str = "a") -> Placement | None:
    return best_placement([device], QueueEntry("new", base_key, wanted))


def test_a_small_trial_goes_to_a_gpu_that_has_room_beside_another() -> None:
    assert placement(gpu(need(60)), need(40)) is not None
    assert placement(gpu(need(60)), need(41)) is None
    assert placement(gpu(need(30), need(30)), need(40)) is not None


def test_a_free_host_is_taken_before_one_is_started_beside_a_running_trial() -> None:
    idle, busy = gpu(idle=1), gpu(need(40))
    found = best_placement([busy, idle], QueueEntry("new", "a", need(40)))
    assert found == Placement(idle, idle.slots[0])
    assert placement(busy, need(40)) == Placement(busy, None)


def test_what_an_idle_host_holds_counts() -> None:
    assert placement(gpu(need(50), idle=1, held_bytes=30), need(50)) is not None  # it is used
    crowded = gpu(need(40), idle=2, held_bytes=20)
    found = placement(crowded, need(50))
    assert found is not None
    assert len(found.evicted) == 1  # 40 and 50, and no 20 besides
    roomy = placement(gpu(need(20), idle=2, held_bytes=20), need(50))
    assert roomy is not None and roomy.evicted == ()


def test_those_idle_for_longest_give_way_first() -> None:
    device = gpu(idle=3, held_bytes=20)
    found = best_placement([device], QueueEntry("new", "a", need(70)))
    assert found is not None and found.slot is device.slots[0]
    assert found.evicted == (device.slots[1],)


def test_alone_means_that_nothing_else_is_there() -> None:
    for wanted in (ALONE, UNKNOWN, ResourceRequest(1000), need(101)):
        assert placement(gpu(need(1)), wanted) is None
        found = placement(gpu(idle=2), wanted)
        assert found is not None and len(found.evicted) == 1
        assert placement(gpu(wanted), need(1)) is None


def test_where_the_memory_of_a_gpu_is_not_known_trials_have_it_alone() -> None:
    device = gpu(need(1))
    device.memory_bytes = None
    assert placement(device, need(1)) is None


def test_there_are_never_more_hosts_on_a_gpu_than_may_be() -> None:
    assert placement(gpu(*[need(1)] * 8), need(1)) is None
    assert placement(gpu(*[need(1)] * 7), need(1)) is not None


def test_a_trial_goes_where_a_device_is_as_large_as_it_needs() -> None:
    small, large = gpu(idle=1), gpu(need(30), idle=1)
    large.memory_bytes = 400
    found = best_placement([small, large], QueueEntry("new", "a", need(200)))
    assert found is not None and found.device is large


def test_on_a_machine_without_gpus_no_more_run_than_its_memory_holds() -> None:
    assert placement(node(need(60), idle=1), need(40)) is not None
    assert placement(node(need(60), idle=1), need(41)) is None
    assert (
        placement(node(need(60)), need(10)) is None
    )  # each trial has a host that is there already


def test_there_an_idle_base_gives_way_and_a_trial_of_unknown_size_has_an_even_share() -> None:
    crowded = placement(node(idle=2, held_bytes=30), need(90))
    assert crowded is not None and len(crowded.evicted) == 1
    assert placement(node(UNKNOWN, idle=1), UNKNOWN) is not None
    assert placement(node(UNKNOWN, idle=1), need(50)) is not None
    assert placement(node(UNKNOWN, idle=1), need(51)) is None
    assert placement(node(UNKNOWN, idle=1), ALONE) is None
    assert placement(node(ALONE, idle=1), UNKNOWN) is None


def test_whether_others_may_compute_on_the_device_meanwhile() -> None:
    assert gpu().is_shared(need(50))
    assert not gpu().is_shared(ALONE)
    assert not gpu().is_shared(UNKNOWN)
    assert not gpu(max_hosts=1).is_shared(need(50))
    assert Device(is_part=True).is_shared(UNKNOWN)
    assert node(idle=2).is_shared(UNKNOWN)
    assert not node(idle=2).is_shared(ALONE)
    assert not node(idle=1).is_shared(UNKNOWN)


def test_what_a_prediction_says_is_what_a_trial_needs() -> None:
    assert ResourceRequest.of({"device_memory_bytes": 7}) == ResourceRequest(7)
    assert ResourceRequest.of({"device_memory_bytes": 7}, exclusive=True) == ResourceRequest(
        7, exclusive=True
    )
    assert ResourceRequest.of(None) == ResourceRequest()
    assert ResourceRequest.of({"device_memory_bytes": "much"}) == ResourceRequest()


def line(*needs: ResourceRequest) -> list[QueueEntry]:
    return [QueueEntry(f"waits {n}", "a", each) for n, each in enumerate(needs)]


def test_a_big_trial_that_waits_holds_back_smaller_ones_on_one_device_only() -> None:
    one, other = gpu(need(40)), gpu(need(80))
    waiting = line(ALONE, need(15), need(15))
    started = next_start(waiting, [one, other])
    assert started == (waiting[1], Placement(other, None))
    assert waiting[0].holds == (one,)
    assert next_start(line(ALONE, need(15)), [one]) is None


def test_the_device_that_is_held_back_stays_the_same() -> None:
    one, other = gpu(need(40)), gpu(need(80))
    waiting = line(ALONE, need(5))
    next_start(waiting, [one, other])
    one.slots[0].need = need(90)  # busier than the other one now
    found = next_start(waiting, [one, other])
    assert found is not None and found[1].device is other


def test_it_starts_wherever_there_is_room_first() -> None:
    one, other = gpu(need(40)), gpu(need(80))
    waiting = line(ALONE)
    assert next_start(waiting, [one, other]) is None
    other.slots[0].trial_id = None
    assert next_start(waiting, [one, other]) == (waiting[0], Placement(other, other.slots[0]))


def test_a_base_goes_before_the_line_only_so_often() -> None:
    waiting = [QueueEntry("first", "b"), *[QueueEntry(f"same {n}", "a") for n in range(9)]]
    order = []
    while waiting:
        device = gpu(idle=1, max_hosts=1)
        device.slots[0].base_key = "a"
        found = next_start(waiting, [device])
        assert found is not None
        order.append(found[0].trial_id)
        waiting.remove(found[0])
    assert order.index("first") == MAX_SKIPS


def worker_group(workers: int, share_bytes: int = 50) -> ResourceRequest:
    return ResourceRequest(need(share_bytes).memory_bytes, workers=workers)


def test_a_worker_group_starts_when_a_device_is_free_for_each_of_its_workers() -> None:
    free, busy = gpu(idle=2), gpu(need(10))
    waiting = line(worker_group(2))
    assert next_start(waiting, [free, busy]) is None
    assert set(waiting[0].holds) == {free, busy}
    also_free = gpu(idle=1)
    found = next_start(waiting, [free, busy, also_free])
    assert found is not None
    assert found[1].members == (free.slots[0], also_free.slots[0])
    assert found[1].evicted == (free.slots[1],)


def test_a_worker_group_that_waits_holds_back_smaller_ones_on_so_many_devices_only() -> None:
    devices = [gpu(need(80)), gpu(need(10)), gpu(need(20)), gpu(need(15))]
    waiting = line(worker_group(2), need(10), need(80))
    found = next_start(waiting, devices)
    assert waiting[0].holds == (devices[1], devices[3])
    assert found is not None and found[0] is waiting[1]
    assert found[1].device in (devices[0], devices[2])
    assert next_start(line(worker_group(4), need(1)), devices) is None


def test_a_large_worker_group_waits_for_hosts_that_are_being_started_and_takes_all() -> None:
    devices = [gpu(idle=1), gpu(idle=1)]
    waiting = line(worker_group(4))
    assert next_start(waiting, devices, Availability(coming=2, expected=2)) is None
    found = next_start(waiting, devices, Availability(expected=2))
    assert found is not None and len(found[1].members) == 2
    assert next_start(waiting, []) is None


def test_a_worker_group_that_needs_a_lost_device_holds_back_nobody_until_it_is_there_again() -> (
    None
):
    devices = [gpu(idle=1), gpu(idle=1), gpu(need(10))]
    waiting = line(worker_group(4), worker_group(2), need(10))
    assert next_start(waiting, devices, Availability(coming=1, expected=4)) is None
    found = next_start(waiting, devices, Availability(expected=4))
    assert found is not None and found[0] is waiting[1]
    found = next_start([waiting[0], waiting[2]], devices, Availability(expected=4))
    assert found is not None and found[0] is waiting[2]
    found = next_start(waiting, [gpu(idle=1) for _ in range(4)], Availability(expected=4))
    assert found is not None and found[0] is waiting[0]


def test_a_worker_group_that_could_run_on_what_is_left_of_the_devices_has_its_turn() -> None:
    devices = [gpu(idle=1), gpu(idle=1), gpu(need(10))]
    waiting = line(worker_group(3), need(10))
    assert next_start(waiting, devices, Availability(expected=4)) is None
    assert len(waiting[0].holds) == 3


def test_on_a_machine_without_gpus_a_worker_group_takes_as_many_hosts_as_its_memory_allows() -> (
    None
):
    machine = node(need(20), idle=3)
    assert next_start(line(worker_group(2, 50)), [machine]) is None
    found = next_start(line(worker_group(2, 40)), [machine])
    assert found is not None and found[1].members == tuple(machine.slots[1:3])
    assert next_start(line(worker_group(2, 40)), [node(ALONE, idle=3)]) is None


def test_a_worker_group_that_wants_to_be_alone_shares_a_machine_with_nobody() -> None:
    alone = ResourceRequest(need(20).memory_bytes, exclusive=True, workers=2)
    assert next_start(line(alone), [node(need(20), idle=3)]) is None
    found = next_start(line(alone), [node(idle=3)])
    assert found is not None and len(found[1].members) == 2
    running = node(alone, alone, idle=2)  # as its workers are, in the places of hosts
    assert next_start(line(worker_group(2, 10)), [running]) is None
    assert next_start(line(need(10)), [running]) is None


def test_whether_others_may_compute_beside_a_gang() -> None:
    alone = ResourceRequest(need(20).memory_bytes, exclusive=True, workers=2)
    machine, device = node(idle=3), gpu(idle=2)
    assert machine.is_shared_beside(machine.slots[:2], worker_group(2))
    assert not machine.is_shared_beside(machine.slots, worker_group(3))
    assert not machine.is_shared_beside(machine.slots[:2], alone)
    assert not device.is_shared_beside(device.slots[:1], worker_group(2))


def test_nobody_goes_past_one_that_has_waited_for_room() -> None:
    for wanted in (ALONE, need(70), worker_group(1)):
        device = gpu(need(60), idle=1)
        waiting = [QueueEntry("first", "b", wanted), QueueEntry("same", "a", need(45))]
        device.slots[1].base_key = "a"
        assert next_start(waiting, [device]) is None
        device.slots[0].trial_id = None
        found = next_start(waiting, [device])
        assert found is not None and found[0] is waiting[0]


NEEDS = st.one_of(
    st.integers(1, 100).map(need), st.sampled_from([ALONE, UNKNOWN]), st.just(need(40))
)


@settings(max_examples=60, deadline=None)
@given(st.lists(NEEDS, min_size=1, max_size=25), st.integers(1, 3), st.randoms())
def test_all_are_served_and_no_device_is_ever_overfull(
    needs: list[ResourceRequest], devices: int, chance: random.Random
) -> None:
    gpus = [gpu(idle=1) for _ in range(devices)]
    waiting, served = line(*needs), []
    running: list[Slot] = []
    while waiting or running:
        while (found := next_start(waiting, gpus)) is not None:
            place, where = found
            waiting.remove(place)
            served.append(place.trial_id)
            for slot in where.evicted:
                where.device.slots.remove(slot)
            slot = where.slot or Slot(where.device, "new")
            if where.slot is None:
                where.device.slots.append(slot)
            slot.trial_id, slot.need = place.trial_id, place.need
            wanted = place.need.memory_bytes
            slot.held_bytes = 5 if wanted is None else min(5, wanted)  # its base, once it is idle
            running.append(slot)
        for device in gpus:
            shares = [device.share_bytes(slot.need) for slot in device.running]
            assert None not in shares or len(shares) == 1
            idle = sum(slot.held_bytes for slot in device.slots if slot.trial_id is None)
            assert None in shares or sum(filter(None, shares)) + idle <= 100
        assert running, "those that wait would wait for ever"
        ended = running.pop(chance.randrange(len(running)))
        ended.trial_id = None
    assert sorted(served) == sorted(place.trial_id for place in line(*needs))
