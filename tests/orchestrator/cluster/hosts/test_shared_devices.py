"""Trials that share devices on a real Ray: logical GPUs with hosts that compute on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from orchestrator.cluster.hosts.devices import ResourceRequest
from orchestrator.cluster.hosts.host_scheduler import start_host_scheduler
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy
from tests.orchestrator.tiny_sweep import REPOSITORY

pytestmark = pytest.mark.slow

GPU_BYTES = 80 << 30
PART = ResourceRequest(int(0.4 * GPU_BYTES))
ALONE = ResourceRequest(1 << 30, exclusive=True)


@pytest.fixture
def scheduler() -> Iterator[Any]:
    """Two GPUs that trials may share."""
    environment = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=2,
        include_dashboard=False,
        log_to_driver=False,
        namespace="shared",
        runtime_env={"env_vars": environment},
    )
    try:
        sharing = SharingPolicy(hosts_per_gpu=4, gpu_memory_bytes=GPU_BYTES)
        actor = start_host_scheduler("shared", HostShape(1, 1, 2), provenance={}, sharing=sharing)
        ray.get(actor.open.remote())
        until(lambda: ray.get(actor.counts.remote()) == (2, 0, 0))
        yield actor
    finally:
        ray.shutdown()


def test_trials_share_gpus_two_by_two_and_an_exclusive_one_has_its_turn(
    scheduler: Any,
) -> None:
    parts = [f"part {number}" for number in range(4)]
    hosts = ray.get([scheduler.acquire.remote(name, "a", PART) for name in parts])
    gpus = dict(zip(parts, (gpu_of(host) for host in hosts), strict=True))
    assert len(set(hosts)) == 4
    assert sorted(gpus.values()) == ["0", "0", "1", "1"]
    assert all(shared_with_others(host) for host in hosts)
    assert ray.available_resources().get("GPU", 0) == 0

    alone = scheduler.acquire.remote("alone", "a", ALONE)
    until(lambda: ray.get(scheduler.counts.remote())[2] == 1)
    later = [scheduler.acquire.remote(f"later {number}", "a", PART) for number in range(2)]
    first_ended = end(scheduler, parts[0])
    assert waits(alone)  # another trial runs there still
    same_gpu = [name for name in parts[1:] if gpus[name] == gpus[first_ended]]
    end(scheduler, *same_gpu)
    other_gpu = [name for name in parts if gpus[name] != gpus[first_ended]]
    end(scheduler, *other_gpu)
    assert not shared_with_others(ray.get(alone, timeout=60))
    taken = gpu_of(ray.get(alone))
    assert [gpu_of(host) for host in ray.get(later, timeout=240)] == [other(taken)] * 2
    assert ray.get(scheduler.running.remote()) == 3


def test_a_host_that_dies_takes_nobody_with_it_and_its_gpu_is_used_again(
    scheduler: Any,
) -> None:
    parts = [f"part {number}" for number in range(4)]
    hosts = ray.get([scheduler.acquire.remote(name, "a", PART) for name in parts])
    ray.kill(hosts[0])
    ray.get(scheduler.replace.remote(parts[0]))
    again = ray.get(scheduler.acquire.remote("again", "a", PART), timeout=120)
    assert ray.get([host.ping.remote() for host in (*hosts[1:], again)]) == [None] * 4
    assert gpu_of(again) == gpu_of_lost(hosts)


def test_a_trial_of_several_workers_gets_whole_gpus_among_many_small_ones(
    scheduler: Any,
) -> None:
    parts = [f"part {number}" for number in range(4)]
    ray.get([scheduler.acquire.remote(name, "a", PART) for name in parts])
    worker_group = scheduler.acquire.remote(
        "group", "a", ResourceRequest(GPU_BYTES // 2, workers=2)
    )
    until(lambda: ray.get(scheduler.counts.remote())[2] == 1)
    later = [scheduler.acquire.remote(f"later {number}", "a", PART) for number in range(4)]
    end(scheduler, *parts[:3])
    assert waits(worker_group) and waits(later[0])
    end(scheduler, parts[3])
    assert ray.get(worker_group, timeout=60) is not None
    until(lambda: ray.available_resources().get("GPU", 0) == 2)  # for Ray Train's workers
    assert all(waits(call) for call in later[:1])
    end(scheduler, "group")
    ray.get(later, timeout=240)
    assert ray.available_resources().get("GPU", 0) == 0


def gpu_of_lost(hosts: list[Any]) -> str:
    """The GPU that only one of the others is on."""
    left = [gpu_of(host) for host in hosts[1:]]
    return min("01", key=left.count)


def end(scheduler: Any, *trials: str) -> str:
    for trial in trials:
        ray.get(scheduler.release.remote(trial))
    return trials[0]


def gpu_of(host: Any) -> str:
    (gpu,) = ray.get(host.__ray_call__.remote(lambda self: ray.get_gpu_ids()))
    return str(gpu)


def other(gpu: str) -> str:
    return "1" if gpu == "0" else "0"


def shared_with_others(host: Any) -> bool:
    shared: bool = ray.get(host.__ray_call__.remote(lambda self: self._device_shared))
    return shared


def waits(call: Any) -> bool:
    return not ray.wait([call], timeout=2)[0]


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.2)
