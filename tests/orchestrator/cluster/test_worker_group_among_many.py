"""A trial of four workers among twenty small ones, on a real Ray of four logical GPUs, is run.

Its four workers are those of Ray Train and train on the CPU. The small trials hold one logical GPU
briefly and compute nothing, because the test is about which trial gets which GPU when.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.hosts.devices import Device, ResourceRequest
from orchestrator.cluster.hosts.host_actors import HostActors
from orchestrator.cluster.hosts.host_scheduler import HostScheduler
from orchestrator.cluster.hosts.host_shape import HostShape
from orchestrator.cluster.hosts.placement import MAX_SKIPS
from tests.orchestrator import tiny_sweep
from tests.orchestrator.cluster.test_worker_group import until
from tests.orchestrator.execution.test_tune_trial import open_proxy
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow

GPUS, SMALL, PLACE = 4, 20, 6  # the large one comes as the seventh
SECONDS_OF_A_SMALL_TRIAL = 1.0


class LightHost:
    """What the scheduler asks of a host, without torch; a small trial is a pause."""

    def warm_up(self) -> dict[str, Any]:
        return {"device_type": "cpu", "device": "a test's"}

    def node_id(self) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def held_bytes(self) -> int:
        return 0

    def set_share(self, share_bytes: int | None, *, device_shared: bool) -> None:
        assert not device_shared

    def until_death(self) -> None:
        threading.Event().wait()

    def gpu_for(self, seconds: float) -> str:
        time.sleep(seconds)
        (gpu,) = ray.get_gpu_ids()
        return str(gpu)


class LightActors(HostActors):
    def _actor(self, device: Device) -> Any:
        options = {"num_cpus": self.shape.cpus, "num_gpus": self.shape.gpus, "max_concurrency": 4}
        return ray.remote(LightHost).options(**options).remote()


class LightScheduler(HostScheduler):
    def _host_actors(self) -> HostActors:
        return LightActors(self.shape, self.sharing, self.provenance)


@pytest.fixture
def scheduler() -> Iterator[Any]:
    environment = {"PYTHONPATH": str(tiny_sweep.REPOSITORY), "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=GPUS,
        num_gpus=GPUS,
        namespace="sweep",
        include_dashboard=True,  # see cluster.start_ray
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    try:
        options = {"name": "scheduler", "num_cpus": 0, "max_concurrency": 1000}
        actor = ray.remote(LightScheduler).options(**options).remote(HostShape(1, 1, GPUS), {})
        ray.get(actor.open.remote())
        until(lambda: ray.get(actor.counts.remote()) == (GPUS, 0, 0))
        yield actor
    finally:
        ray.shutdown()


def test_a_trial_on_four_gpus_starts_before_twenty_small_ones_are_done(
    scheduler: Any, tmp_path: Path
) -> None:
    proxy = open_proxy(
        RunFolder(tmp_path / "run"), make_llama(tmp_path / "model"), rank=2, workers=GPUS
    )
    began: list[str] = []
    free_gpus: list[float] = []

    def large() -> dict[str, Any]:
        result = proxy.step()  # returns when all workers have begun
        began.append("large")
        free_gpus.append(ray.available_resources().get("GPU", 0))
        while not result["done"]:
            result = proxy.step()
        return dict(result["event"])

    def small(name: str, given: Any) -> str:
        host = ray.get(given)
        began.append(name)
        gpu: str = ray.get(host.gpu_for.remote(SECONDS_OF_A_SMALL_TRIAL))
        ray.get(scheduler.release.remote(name))
        return gpu

    with ThreadPoolExecutor(SMALL + 1) as pool:
        names = [f"small {number}" for number in range(SMALL)]
        given = [scheduler.acquire.remote(name, "a", ResourceRequest()) for name in names[:PLACE]]
        until(lambda: come(scheduler) == PLACE)
        ended = pool.submit(large)
        until(lambda: come(scheduler) == PLACE + 1)
        given += [scheduler.acquire.remote(name, "a", ResourceRequest()) for name in names[PLACE:]]
        until(lambda: come(scheduler) == SMALL + 1)
        calls = [pool.submit(small, *each) for each in zip(names, given, strict=True)]
        gpus = [call.result(timeout=240) for call in calls]
        event = ended.result(timeout=240)
    print(f"the large trial was number {began.index('large') + 1} of {SMALL + 1}")
    assert event["kind"] == "finished"
    assert began.index("large") <= PLACE + GPUS + MAX_SKIPS
    assert free_gpus == [0]
    assert set(gpus) == {"0", "1", "2", "3"}
    until(lambda: ray.get(scheduler.counts.remote()) == (GPUS, 0, 0))


def come(scheduler: Any) -> int:
    """How many have a GPU or wait for one."""
    running: int = ray.get(scheduler.running.remote())
    return running + int(ray.get(scheduler.counts.remote())[2])
