"""The host scheduler: first come first served, hosts with the same base, dead hosts replaced."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError

from orchestrator.cluster.hosts.devices import FRAGMENTATION, Device, ResourceRequest, Slot
from orchestrator.cluster.hosts.host_actors import HostActors
from orchestrator.cluster.hosts.host_scheduler import HostScheduler
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy, host_shape
from orchestrator.cluster.hosts.placement import MAX_SKIPS
from trainables.errors import InputError

P = ParamSpec("P")


class StubActors(HostActors):
    """Hosts that are names and come up at once; a GPU that may be shared has 100 bytes."""

    def __init__(self, shape: HostShape, sharing: SharingPolicy) -> None:
        super().__init__(shape, sharing, {})
        self.started = 0
        self.failures: list[Exception] = []
        self.ended: list[str] = []
        self.dead: list[str] = []
        self.interrupted: list[str] = []
        self.shares: list[int | None] = []
        self.worker_groups: list[str] = []
        self.recalled: list[str] = []
        self.stuck = False

    async def start(self, slot: Slot) -> dict[str, Any]:
        await asyncio.sleep(0)
        if self.stuck:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop()
        self.started += 1
        slot.actor = f"host {self.started}"
        self.description = self.description or {"device": "a test's"}
        return {"device_memory_bytes": 100} if self.sharing.hosts_per_gpu > 1 else {}

    def end(self, slot: Slot) -> None:
        self.ended.append(slot.actor)
        slot.device.slots.remove(slot)

    async def set_share(self, slot: Slot, need: ResourceRequest) -> None:
        await asyncio.sleep(0)
        if slot.actor in self.dead:
            raise ActorDiedError
        self.shares.append(slot.device.share_bytes(need))

    def reserve_for_worker(self, slot: Slot, trial_id: str, need: ResourceRequest) -> None:
        slot.actor, slot.trial_id = None, trial_id
        slot.need = ResourceRequest(exclusive=True)

    def start_group(self, need: ResourceRequest, *, device_shared: bool) -> str:
        self.worker_groups.append(f"group of {need.workers}")
        return self.worker_groups[-1]

    async def cancel_unstarted_group(self, worker_group: Slot) -> None:
        self.recalled.append(worker_group.actor)

    def end_group(self, worker_group: Slot) -> None:
        """Its workers are none."""

    async def interrupt(self, slot: Slot) -> None:
        self.interrupted.append(slot.actor)

    async def until_death(self, slot: Slot) -> None:
        await asyncio.Event().wait()

    def _reserve(self) -> Device:
        return Device(max_hosts=self.sharing.hosts_per_gpu)


class StubHosts(HostScheduler):
    """A scheduler whose hosts are names: only its decisions are left of it."""

    actors: StubActors

    def _host_actors(self) -> HostActors:
        self.actors = StubActors(self.shape, self.sharing)
        return self.actors

    @property
    def broken(self) -> bool:
        return bool(self.actors.failures)

    @broken.setter
    def broken(self, value: bool) -> None:
        self.actors.failures = [RuntimeError("no accelerator")] * (9 if value else 0)


@pytest.fixture(autouse=True)
def no_node_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cluster.hosts.host_scheduler.draining_nodes", set)
    monkeypatch.setattr("orchestrator.cluster.hosts.host_scheduler.dead_nodes", set)
    monkeypatch.setattr("orchestrator.cluster.hosts.group_places.VACANT_SECONDS", 0)


def hosts(count: int) -> StubHosts:
    return StubHosts(HostShape(1, 1, count), {})


def shared_gpus(count: int, *, trials: int | None = None) -> StubHosts:
    return StubHosts(HostShape(1, 1, count), {}, SharingPolicy(hosts_per_gpu=8, trials=trials))


def bytes_(count: int) -> ResourceRequest:
    """A need for which so many bytes are set apart."""
    return ResourceRequest(math.floor(count / (1 + FRAGMENTATION)))


ALONE = ResourceRequest(10, exclusive=True)


def told(story: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The story as a test, which has ten seconds."""

    @functools.wraps(story)
    def test(*arguments: P.args, **named: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(story(*arguments, **named), timeout=10))

    return test


async def settled(*waiting: Awaitable[Any]) -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@told
async def test_those_that_wait_are_served_in_the_order_they_came() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    await scheduler.acquire("first", "a")
    served: list[str] = []

    async def wait(name: str, base: str) -> None:
        await scheduler.acquire(name, base)
        served.append(name)
        scheduler.release(name)

    waiting = []
    for name, base in (("second", "b"), ("third", "c"), ("fourth", "d")):
        waiting.append(asyncio.create_task(wait(name, base)))
        await settled()
    scheduler.release("first")
    await asyncio.gather(*waiting)
    assert served == ["second", "third", "fourth"]


async def order_served(scheduler: StubHosts, line: list[tuple[str, str]]) -> list[str]:
    """Who of those in line, by name and base, is given the one host, one after another."""
    await scheduler.open()
    await scheduler.acquire("before", "a")
    served: list[str] = []

    async def wait(name: str, base: str) -> None:
        await scheduler.acquire(name, base)
        served.append(name)
        await asyncio.sleep(0)
        scheduler.release(name)

    waiting = []
    for name, base in line:
        waiting.append(asyncio.create_task(wait(name, base)))
        await settled()
    scheduler.release("before")
    await asyncio.gather(*waiting)
    return served


@told
async def test_a_host_that_comes_free_goes_to_who_waits_for_its_base() -> None:
    line = [("other", "b"), ("same", "a"), ("other too", "b")]
    assert await order_served(hosts(1), line) == ["same", "other", "other too"]


@told
async def test_the_first_in_line_is_not_passed_over_for_ever() -> None:
    same = [(f"same {number}", "a") for number in range(6)]
    served = await order_served(hosts(1), [("first", "b"), *same])
    assert served.index("first") == MAX_SKIPS
    assert len(served) == 7


@told
async def test_a_host_that_holds_the_base_is_taken_before_others() -> None:
    scheduler = hosts(3)
    await scheduler.open()
    places = {name: await scheduler.acquire(name, name) for name in ("a", "b", "c")}
    for name in ("c", "b", "a"):
        scheduler.release(name)
    for name in ("b", "a", "c"):
        assert await scheduler.acquire(f"{name} again", name) == places[name]


@told
async def test_a_host_without_a_base_is_taken_before_one_that_would_lose_its_own() -> None:
    scheduler = hosts(2)
    await scheduler.open()
    first = await scheduler.acquire("one", "a")
    scheduler.release("one")
    assert await scheduler.acquire("two", "b") != first


@told
async def test_a_host_runs_one_trial_at_a_time() -> None:
    scheduler = hosts(2)
    await scheduler.open()
    names = [str(number) for number in range(6)]
    waiting = [asyncio.create_task(scheduler.acquire(name, "a")) for name in names]
    await settled()
    done = [task for task in waiting if task.done()]
    assert len(done) == 2
    assert len({task.result() for task in done}) == 2
    for name in names:
        scheduler.release(name)
        await settled()
    assert all(task.done() for task in waiting)


@told
async def test_a_host_that_died_is_replaced_and_serves_who_waits() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    lost = await scheduler.acquire("one", "a")
    waiting = asyncio.create_task(scheduler.acquire("two", "a"))
    await settled()
    scheduler.replace("one")
    scheduler.release("one")
    assert await waiting != lost
    assert scheduler.actors.started == 2


@told
async def test_replacing_the_host_of_an_unknown_trial_does_nothing() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    scheduler.replace("nobody")
    scheduler.release("nobody")
    await settled()
    assert scheduler.actors.started == 1


@told
async def test_who_waits_is_told_that_no_host_can_be_had() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    await scheduler.acquire("one", "a")
    waiting = asyncio.create_task(scheduler.acquire("two", "a"))
    await settled()
    scheduler.broken = True
    scheduler.replace("one")
    with pytest.raises(RuntimeError, match="no accelerator"):
        await waiting


@told
async def test_who_comes_after_the_last_host_was_lost_is_not_left_waiting() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    await scheduler.acquire("one", "a")
    scheduler.broken = True
    scheduler.replace("one")
    await settled()
    with pytest.raises(RuntimeError, match="no accelerator"):
        await scheduler.acquire("two", "a")
    scheduler.broken = False
    await scheduler.acquire("three", "a")


@told
async def test_who_gave_up_waiting_is_passed_over() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    await scheduler.acquire("one", "a")
    gone = asyncio.create_task(scheduler.acquire("two", "a"))
    stays = asyncio.create_task(scheduler.acquire("three", "a"))
    await settled()
    gone.cancel()
    await settled()
    scheduler.release("one")
    await stays


@told
async def test_an_accelerator_that_can_not_be_had_is_told_at_once() -> None:
    scheduler = hosts(2)
    scheduler.broken = True
    with pytest.raises(RuntimeError, match="no accelerator"):
        await scheduler.open()


@told
async def test_a_free_host_that_has_died_is_not_given_out() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    first = await scheduler.acquire("one", "a")
    scheduler.release("one")
    scheduler.actors.dead.append(first)
    assert await scheduler.acquire("two", "a") != first
    assert scheduler.actors.started == 2


@told
async def test_when_the_sweep_ends_running_trials_are_told_and_none_waits_or_starts() -> None:
    scheduler = hosts(2)
    await scheduler.open()
    running = await scheduler.acquire("one", "a")
    await scheduler.acquire("two", "a")
    waiting = asyncio.create_task(scheduler.acquire("three", "a"))
    scheduler.release("two")
    await waiting
    late = asyncio.create_task(scheduler.acquire("four", "a"))
    await settled()
    await scheduler.interrupt()
    assert running in scheduler.actors.interrupted
    assert await late is None
    assert await scheduler.acquire("five", "a") is None
    assert scheduler.is_ending()
    scheduler.release("one")
    scheduler.reopen()
    assert await scheduler.acquire("one/report", "a") == running


@told
async def test_a_host_on_a_node_that_is_about_to_go_is_left_and_given_out_no_more() -> None:
    scheduler = hosts(2)
    await scheduler.open()
    busy = await scheduler.acquire("one", "a")
    (slot,) = [each for each in scheduler._up() if each.trial_id == "one"]
    slot.node_id = "going"
    scheduler._pool.leave_nodes({"going"})
    scheduler.release("one")
    await settled()
    assert scheduler.actors.interrupted == [busy]
    assert scheduler.actors.ended == [busy]
    assert busy not in [each.actor for each in scheduler._up()]
    assert scheduler.actors.started == 3


@told
async def test_trials_share_gpus_two_by_two_and_one_that_wants_one_alone_is_not_starved() -> None:
    scheduler = shared_gpus(2)
    await scheduler.open()
    await settled()
    small = [f"small {number}" for number in range(4)]
    for name in small:
        await scheduler.acquire(name, "a", bytes_(40))
    assert scheduler.actors.started == 4
    assert [len(device.running) for device in scheduler._pool.devices] == [2, 2]
    alone = asyncio.create_task(scheduler.acquire("alone", "a", ALONE))
    await settled()
    late = [asyncio.create_task(scheduler.acquire(f"late {n}", "a", bytes_(40))) for n in "12"]
    await settled()
    held = [device for device in scheduler._pool.devices if device in scheduler._line[0].holds]
    on_it = [slot.trial_id for device in held for slot in device.slots]
    others = [name for name in small if name not in on_it]
    scheduler.release(on_it[0] or "", 5)
    await settled()
    assert not alone.done() and not late[0].done()  # there is room, and it is held back
    scheduler.release(others[0], 5)
    await settled()
    assert late[0].done() and not late[1].done()  # on the other device nobody is held back
    scheduler.release(on_it[1] or "", 5)
    await settled()
    assert alone.done()
    assert [slot.trial_id for device in held for slot in device.slots] == ["alone"]


@told
async def test_a_worker_group_starts_before_many_small_trials_end_and_hosts_come_back() -> None:
    scheduler = hosts(4)
    await scheduler.open()
    await settled()
    order: list[str] = []

    async def run(name: str, need: ResourceRequest) -> None:
        await scheduler.acquire(name, "a", need)
        order.append(name)
        await settled()
        scheduler.release(name)

    trials = [(f"one {number}", ResourceRequest()) for number in range(20)]
    trials.insert(6, ("four", ResourceRequest(workers=4)))
    await asyncio.gather(*[run(name, need) for name, need in trials])
    assert order.index("four") <= 6 + MAX_SKIPS
    await settled()
    assert scheduler.counts() == (4, 0, 0)
    assert len(scheduler.actors.worker_groups) == 1


@told
async def test_the_places_of_a_worker_group_are_its_own_and_a_second_one_takes_them() -> None:
    scheduler = hosts(3)
    await scheduler.open()
    await settled()
    await scheduler.acquire("group", "a", ResourceRequest(workers=2))
    await scheduler.acquire("beside", "a")
    second = asyncio.create_task(scheduler.acquire("second", "a", ResourceRequest(workers=2)))
    last = asyncio.create_task(scheduler.acquire("last", "a"))
    await settled()
    assert not second.done() and not last.done()
    assert scheduler.running() == 2
    before = scheduler.actors.started
    scheduler.release("group")
    await settled()
    assert second.done() and not last.done()
    assert scheduler.actors.started == before
    scheduler.release("second")
    await settled()
    assert last.done()
    scheduler.release("beside")
    scheduler.release("last")
    assert scheduler.counts() == (3, 0, 0)


@told
async def test_hosts_on_their_way_do_not_take_what_a_worker_group_was_given() -> None:
    scheduler = hosts(3)
    await scheduler.open()
    await settled()
    for name in ("one", "two", "three"):
        await scheduler.acquire(name, "a")
    scheduler.actors.stuck = True  # Ray has no room for another one
    scheduler.replace("three")
    waiting = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=2)))
    scheduler.release("one")
    scheduler.release("two")
    await waiting
    await settled()
    assert scheduler.counts() == (1, 0, 0)  # the worker group
    scheduler.actors.stuck = False
    scheduler.release("group")
    await settled()
    assert scheduler.counts() == (3, 0, 0)


async def four_hosts_of_which_one_is_lost(trial_id: str) -> StubHosts:
    """That was the trial's; none comes in its place."""
    scheduler = hosts(4)
    await scheduler.open()
    await settled()
    for name in ("one", "two", "three", trial_id):
        await scheduler.acquire(name, "a")
    scheduler.actors.stuck = True
    scheduler.replace(trial_id)
    return scheduler


@told
async def test_one_lost_machine_does_not_hold_the_sweep_behind_a_worker_group_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.cluster.hosts.host_pool.OVERDUE_AFTER_SECONDS", 0.2)
    scheduler = await four_hosts_of_which_one_is_lost("lost")
    worker_group = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=4)))
    smaller = asyncio.create_task(scheduler.acquire("smaller", "a", ResourceRequest(workers=2)))
    await settled()
    small = asyncio.create_task(scheduler.acquire("small", "a"))
    for name in ("one", "two", "three"):
        scheduler.release(name)
    await settled()
    assert not small.done() and not smaller.done()  # another host may still come in its place
    await asyncio.gather(small, smaller)
    assert not worker_group.done()
    (problem,) = scheduler.status().problems
    assert "A trial of 4 workers waits" in problem
    scheduler.actors.stuck = False
    scheduler.release("small")
    scheduler.release("smaller")
    await worker_group
    assert scheduler.status().problems == ()


@told
async def test_a_host_that_is_late_is_waited_for_no_more_when_it_is_started_again_after_a_gang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.cluster.hosts.host_pool.OVERDUE_AFTER_SECONDS", 0.01)
    scheduler = await four_hosts_of_which_one_is_lost("lost")
    await asyncio.sleep(0.05)
    smaller = asyncio.create_task(scheduler.acquire("smaller", "a", ResourceRequest(workers=2)))
    scheduler.release("one")
    scheduler.release("two")
    await smaller
    monkeypatch.setattr("orchestrator.cluster.hosts.host_pool.OVERDUE_AFTER_SECONDS", 60)
    worker_group = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=4)))
    small = asyncio.create_task(scheduler.acquire("small", "a"))
    await settled()
    scheduler.release("smaller")
    await settled()
    assert scheduler.counts()[1] == 3
    scheduler.release("three")
    await small
    assert not worker_group.done()


@told
async def test_neither_does_a_host_that_fails_for_good() -> None:
    scheduler = hosts(3)
    await scheduler.open()
    await settled()
    for name in ("one", "two", "three"):
        await scheduler.acquire(name, "a")
    worker_group = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=3)))
    await settled()
    small = asyncio.create_task(scheduler.acquire("small", "a"))
    scheduler.broken = True
    scheduler.release("one")
    scheduler.replace("three")
    await small
    assert not worker_group.done()


@told
async def test_a_worker_group_comes_as_soon_as_the_last_host_is_up_that_it_waits_for() -> None:
    scheduler = hosts(2)
    worker_group = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=4)))
    await scheduler.open()
    await asyncio.wait_for(
        worker_group, timeout=1
    )  # larger than the sweep's hosts: Ray finds the rest


@told
async def test_a_worker_group_that_has_lost_a_machine_does_not_take_its_place_there_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("orchestrator.cluster.hosts.host_pool.OVERDUE_AFTER_SECONDS", 0.01)
    scheduler = hosts(3)
    await scheduler.open()
    await settled()
    for number, slot in enumerate(scheduler._up()):
        slot.node_id = f"node {number}"
    await scheduler.acquire("group", "a", ResourceRequest(workers=3))
    scheduler._groups.dead_nodes = {"node 2"}
    scheduler.actors.stuck = True
    scheduler.replace("group")
    again = asyncio.create_task(scheduler.acquire("group", "a", ResourceRequest(workers=3)))
    await asyncio.sleep(0.05)
    assert not again.done()
    smaller = asyncio.create_task(scheduler.acquire("other", "a", ResourceRequest(workers=2)))
    scheduler.actors.stuck = False
    scheduler._pool.start_host()
    scheduler._pool.start_host()
    await smaller
    assert not again.done()


@told
async def test_one_that_was_sent_to_a_machine_before_its_loss_was_known_is_called_back_once() -> (
    None
):
    scheduler = hosts(2)
    await scheduler.open()
    await settled()
    for number, slot in enumerate(scheduler._up()):
        slot.node_id = f"node {number}"
    worker_group = await scheduler.acquire("group", "a", ResourceRequest(workers=2))
    scheduler._groups.leave_dead_nodes()
    await settled()
    assert scheduler.actors.recalled == []
    scheduler._groups.dead_nodes = {"node 1"}
    for _ in range(2):
        scheduler._groups.leave_dead_nodes()
        await settled()
    assert scheduler.actors.recalled == [worker_group]


@told
async def test_hosts_that_were_called_off_for_two_worker_groups_at_once_come_back_once() -> None:
    scheduler = hosts(3)
    await scheduler.open()
    await settled()
    for name in ("one", "two", "three"):
        await scheduler.acquire(name, "a")
    scheduler.actors.stuck = True
    worker_groups = [
        asyncio.create_task(scheduler.acquire(name, "a", ResourceRequest(workers=1)))
        for name in "ab"
    ]
    await settled()
    scheduler.replace("three")
    for slot in scheduler._up():  # both at once
        scheduler._free(slot)
    scheduler._serve()
    await asyncio.gather(*worker_groups)
    scheduler.actors.stuck = False
    scheduler.release("a")
    scheduler.release("b")
    await settled()
    assert scheduler.counts() == (3, 0, 0)


def test_a_worker_takes_a_gpu_whole_and_a_machine_whole_where_its_trial_wants_to_be_alone() -> None:
    actors = HostActors(HostShape(1, 0, 2), SharingPolicy(), {})
    for device, exclusive, alone in (
        (Device(), False, True),
        (Device(is_node=True), False, False),
        (Device(is_node=True), True, True),
    ):
        slot = Slot(device)
        actors.reserve_for_worker(slot, "group", ResourceRequest(5, exclusive=exclusive, workers=2))
        assert slot.trial_id == "group" and slot.need == ResourceRequest(5, exclusive=alone)


@told
async def test_a_trial_is_told_its_share_and_one_of_unknown_size_has_the_gpu_alone() -> None:
    scheduler = shared_gpus(1)
    await scheduler.open()
    await scheduler.acquire("one", "a", ResourceRequest(30))
    share = math.ceil(30 * (1 + FRAGMENTATION))
    waiting = asyncio.create_task(scheduler.acquire("two", "a", ResourceRequest()))
    await settled()
    assert not waiting.done()
    scheduler.release("one")
    await waiting
    assert scheduler.actors.shares == [share, None]


@told
async def test_a_host_that_can_not_be_started_beside_another_leaves_the_trial_waiting() -> None:
    scheduler = shared_gpus(1)
    await scheduler.open()
    await scheduler.acquire("one", "a", bytes_(30))
    scheduler.actors.failures = [RuntimeError("no room for a context")]
    waiting = asyncio.create_task(scheduler.acquire("two", "a", bytes_(30)))
    await settled()
    assert not waiting.done()
    (problem,) = scheduler.status().problems
    assert "no room for a context" in problem and "1 are left" in problem
    assert scheduler.status().problems == ()
    scheduler.release("one")
    await waiting


@told
async def test_a_shared_gpu_keeps_its_other_host_when_one_dies_and_is_given_up_with_the_last() -> (
    None
):
    scheduler = shared_gpus(1)
    await scheduler.open()
    for name in ("one", "two"):
        await scheduler.acquire(name, "a", bytes_(30))
    (device,) = scheduler._pool.devices
    scheduler.replace("one")
    await settled()
    assert (scheduler.actors.started, scheduler._pool.devices) == (2, [device])
    scheduler.replace("two")
    await settled()
    assert scheduler.actors.started == 3
    assert scheduler._pool.devices != [device]


@told
async def test_no_more_trials_run_than_the_space_says() -> None:
    scheduler = shared_gpus(1, trials=2)
    await scheduler.open()
    for name in ("one", "two"):
        await scheduler.acquire(name, "a", bytes_(10))
    waiting = asyncio.create_task(scheduler.acquire("three", "a", bytes_(10)))
    await settled()
    assert not waiting.done()
    scheduler.release("one")
    await waiting


@told
async def test_who_waits_and_is_gone_for_good_waits_no_longer() -> None:
    scheduler = hosts(1)
    await scheduler.open()
    await scheduler.acquire("one", "a")
    waiting = asyncio.create_task(scheduler.acquire("two", "a"))
    await settled()
    scheduler.replace("two")  # its proxy broke
    assert await waiting is None
    scheduler.release("one")
    assert [slot.trial_id for slot in scheduler._up()] == [None]


@told
async def test_lost_capacity_is_said_once_with_the_reason() -> None:
    scheduler = hosts(2)
    await scheduler.open()
    await settled()
    await scheduler.acquire("one", "a")
    scheduler.broken = True
    scheduler.replace("one")
    await settled()
    (problem,) = scheduler.status().problems
    assert "no accelerator" in problem and "1 are left" in problem
    assert scheduler.status().problems == ()


@told
async def test_nodes_that_can_not_be_looked_at_are_said_once_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[None] = []

    def look() -> set[str]:
        looks.append(None)
        if len(looks) < 3:
            raise RuntimeError("the head node is busy")
        return set()

    monkeypatch.setattr("orchestrator.cluster.hosts.host_scheduler.draining_nodes", look)
    monkeypatch.setattr("orchestrator.cluster.hosts.host_scheduler.NODE_POLL_SECONDS", 0.001)
    scheduler = hosts(1)
    await scheduler.open()
    while len(looks) < 5:
        await asyncio.sleep(0.01)
    (problem,) = scheduler.status().problems
    assert "the head node is busy" in problem


@pytest.mark.parametrize(
    ("cluster", "wanted", "shape"),
    [
        ({"CPU": 4}, {}, HostShape(1, 0, 4)),
        ({"CPU": 4}, {"count": 2}, HostShape(1, 0, 2)),
        ({"CPU": 4}, {"cpus": 3}, HostShape(3, 0, 1)),
        ({"CPU": 16, "GPU": 2}, {}, HostShape(8, 1, 2)),
        ({"CPU": 16, "GPU": 2}, {"gpus": 0.5}, HostShape(4, 0.5, 4)),
        ({"CPU": 16, "GPU": 2}, {"gpus": 0}, HostShape(1, 0, 16)),
        ({"CPU": 16, "GPU": 8}, {"cpus": 4}, HostShape(4, 1, 4)),
    ],
)
def test_hosts_divide_the_cluster(
    cluster: dict[str, float], wanted: dict[str, Any], shape: HostShape
) -> None:
    arguments = {"cpus": None, "gpus": None, "count": None, "trials": 40, **wanted}
    assert host_shape([cluster], **arguments) == shape


def test_hosts_are_counted_node_by_node() -> None:
    head, worker = {"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}
    wanted: dict[str, Any] = {"cpus": None, "gpus": None, "count": None, "trials": 40}
    assert host_shape([head, worker, worker], **wanted) == HostShape(8, 1, 2)


def test_there_are_never_more_hosts_than_trials_or_memory_for_them() -> None:
    wanted: dict[str, Any] = {"cpus": None, "gpus": None, "count": None}
    big = {"CPU": 64.0, "memory": 300e9}
    assert host_shape([big], **wanted, trials=6).count == 6
    assert host_shape([{"CPU": 64.0, "memory": 4.5e9}], **wanted, trials=40).count == 4


def test_what_no_node_has_room_for_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(InputError, match="no node has them"):
        host_shape([{"CPU": 8.0}], cpus=None, gpus=1, count=None, trials=4)


@given(cpus=st.integers(1, 256), gpus=st.integers(0, 16))
def test_all_hosts_fit_the_cluster_at_once(cpus: int, gpus: int) -> None:
    nodes = [{"CPU": cpus, "GPU": gpus}]
    shape = host_shape(nodes, cpus=None, gpus=None, count=None, trials=1000)
    assert shape.count >= 1
    assert shape.count * shape.cpus <= cpus
    assert shape.count * shape.gpus <= gpus
