"""Specification of admission: first come first served, near its base, and a dead host replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host_shape import HostShape, host_shape
from orchestrator.hosts import PASSED_OVER_AT_MOST, Admission
from trainables.errors import InputError


class StubHosts(Admission):
    """Admission whose hosts are names: what decides who gets one is all that is left of it."""

    def __init__(self, shape: HostShape, provenance: dict[str, str]) -> None:
        super().__init__(shape, provenance)
        self.started = 0
        self.broken = False
        self.ended: list[str] = []
        self.dead: list[str] = []
        self.interrupted: list[str] = []

    async def _bring_up(self) -> None:
        from orchestrator.hosts import _Slot

        if self.broken:
            raise RuntimeError("no accelerator")
        self.started += 1
        self._description = self._description or {"device": "a test's"}
        self._ready.append(_Slot(f"host {self.started}"))
        self._serve()

    def _end(self, slot: Any) -> None:
        self.ended.append(slot.actor)

    async def _answers(self, slot: Any) -> bool:
        await asyncio.sleep(0)
        return slot.actor not in self.dead

    async def _interrupted(self, slot: Any) -> None:
        self.interrupted.append(slot.actor)

    async def _leave_draining_nodes(self) -> None:
        """None."""


def hosts(count: int) -> StubHosts:
    return StubHosts(HostShape(1, 0, count), {})


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), timeout=10))


async def settled(*waiting: Awaitable[Any]) -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_those_that_wait_are_served_in_the_order_they_came() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        await admission.acquire("first", "a")
        served: list[str] = []

        async def wait(name: str, base: str) -> None:
            await admission.acquire(name, base)
            served.append(name)
            admission.release(name)

        waiting = []
        for name, base in (("second", "b"), ("third", "c"), ("fourth", "d")):
            waiting.append(asyncio.create_task(wait(name, base)))
            await settled()
        admission.release("first")
        await asyncio.gather(*waiting)
        assert served == ["second", "third", "fourth"]

    told(story)


async def order_served(admission: StubHosts, line: list[tuple[str, str]]) -> list[str]:
    """Who of those in line, by name and base, is given the one host, one after another."""
    await admission.open()
    await admission.acquire("before", "a")
    served: list[str] = []

    async def wait(name: str, base: str) -> None:
        await admission.acquire(name, base)
        served.append(name)
        await asyncio.sleep(0)
        admission.release(name)

    waiting = []
    for name, base in line:
        waiting.append(asyncio.create_task(wait(name, base)))
        await settled()
    admission.release("before")
    await asyncio.gather(*waiting)
    return served


def test_a_host_that_comes_free_goes_to_who_waits_for_its_base() -> None:
    async def story() -> None:
        line = [("other", "b"), ("same", "a"), ("other too", "b")]
        assert await order_served(hosts(1), line) == ["same", "other", "other too"]

    told(story)


def test_the_first_in_line_is_not_passed_over_for_ever() -> None:
    async def story() -> None:
        same = [(f"same {number}", "a") for number in range(6)]
        served = await order_served(hosts(1), [("first", "b"), *same])
        assert served.index("first") == PASSED_OVER_AT_MOST
        assert len(served) == 7

    told(story)


def test_a_host_that_holds_the_base_is_taken_before_others() -> None:
    async def story() -> None:
        admission = hosts(3)
        await admission.open()
        places = {name: await admission.acquire(name, name) for name in ("a", "b", "c")}
        for name in ("c", "b", "a"):
            admission.release(name)
        for name in ("b", "a", "c"):
            assert await admission.acquire(f"{name} again", name) == places[name]

    told(story)


def test_a_host_without_a_base_is_taken_before_one_that_would_lose_its_own() -> None:
    async def story() -> None:
        admission = hosts(2)
        await admission.open()
        first = await admission.acquire("one", "a")
        admission.release("one")
        assert await admission.acquire("two", "b") != first

    told(story)


def test_a_host_runs_one_trial_at_a_time() -> None:
    async def story() -> None:
        admission = hosts(2)
        await admission.open()
        names = [str(number) for number in range(6)]
        waiting = [asyncio.create_task(admission.acquire(name, "a")) for name in names]
        await settled()
        done = [task for task in waiting if task.done()]
        assert len(done) == 2
        assert len({task.result() for task in done}) == 2
        for name in names:
            admission.release(name)
            await settled()
        assert all(task.done() for task in waiting)

    told(story)


def test_a_host_that_died_is_replaced_and_serves_who_waits() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        lost = await admission.acquire("one", "a")
        waiting = asyncio.create_task(admission.acquire("two", "a"))
        await settled()
        admission.replace("one")
        admission.release("one")
        assert await waiting != lost
        assert admission.started == 2

    told(story)


def test_replacing_the_host_of_an_unknown_trial_does_nothing() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        admission.replace("nobody")
        admission.release("nobody")
        await settled()
        assert admission.started == 1

    told(story)


def test_who_waits_is_told_that_no_host_can_be_had() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        await admission.acquire("one", "a")
        waiting = asyncio.create_task(admission.acquire("two", "a"))
        await settled()
        admission.broken = True
        admission.replace("one")
        with pytest.raises(RuntimeError, match="no accelerator"):
            await waiting

    told(story)


def test_who_comes_after_the_last_host_was_lost_is_not_left_waiting() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        await admission.acquire("one", "a")
        admission.broken = True
        admission.replace("one")
        await settled()
        with pytest.raises(RuntimeError, match="no accelerator"):
            await admission.acquire("two", "a")
        admission.broken = False
        await admission.acquire("three", "a")

    told(story)


def test_who_gave_up_waiting_is_passed_over() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        await admission.acquire("one", "a")
        gone = asyncio.create_task(admission.acquire("two", "a"))
        stays = asyncio.create_task(admission.acquire("three", "a"))
        await settled()
        gone.cancel()
        await settled()
        admission.release("one")
        await stays

    told(story)


def test_an_accelerator_that_can_not_be_had_is_told_at_once() -> None:
    async def story() -> None:
        admission = hosts(2)
        admission.broken = True
        with pytest.raises(RuntimeError, match="no accelerator"):
            await admission.open()

    told(story)


def test_a_free_host_that_has_died_is_not_given_out() -> None:
    async def story() -> None:
        admission = hosts(1)
        await admission.open()
        first = await admission.acquire("one", "a")
        admission.release("one")
        admission.dead.append(first)
        assert await admission.acquire("two", "a") != first
        assert admission.started == 2

    told(story)


def test_when_the_sweep_ends_running_trials_are_told_and_none_waits_or_starts() -> None:
    async def story() -> None:
        admission = hosts(2)
        await admission.open()
        running = await admission.acquire("one", "a")
        await admission.acquire("two", "a")
        waiting = asyncio.create_task(admission.acquire("three", "a"))
        admission.release("two")
        await waiting
        late = asyncio.create_task(admission.acquire("four", "a"))
        await settled()
        await admission.interrupt()
        assert running in admission.interrupted
        assert await late is None
        assert await admission.acquire("five", "a") is None
        assert admission.is_ending()
        admission.release("one")
        admission.reopen()
        assert await admission.acquire("one/report", "a") == running

    told(story)


def test_a_host_on_a_node_that_is_about_to_go_is_left_and_given_out_no_more() -> None:
    async def story() -> None:
        admission = hosts(2)
        await admission.open()
        busy = await admission.acquire("one", "a")
        (slot,) = [each for each in admission._ready if each.trial_id == "one"]
        slot.leaving = True
        admission.release("one")
        await settled()
        assert admission.ended == [busy]
        assert busy not in [each.actor for each in admission._ready]
        assert admission.started == 3

    told(story)


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
