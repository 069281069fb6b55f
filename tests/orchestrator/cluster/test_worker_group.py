"""Trials of several workers on a real Ray: two processes train a tiny model on the CPU together."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import ray

from orchestrator.cluster.hosts.devices import ResourceRequest
from orchestrator.cluster.hosts.host_scheduler import start_host_scheduler
from orchestrator.cluster.hosts.host_shape import HostShape
from tests.orchestrator import tiny_sweep
from tests.orchestrator.execution.test_tune_trial import kill_host, next_event, open_proxy
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Any]:
    environment = {"PYTHONPATH": str(tiny_sweep.REPOSITORY), "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=2,
        namespace="sweep",
        include_dashboard=True,  # see cluster.start_ray
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    actor = start_host_scheduler("scheduler", HostShape(1, 0, 2), provenance={})
    ray.get(actor.open.remote())
    until(lambda: ray.get(actor.counts.remote()) == (2, 0, 0))
    yield actor
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


def test_a_worker_that_dies_ends_the_attempt_and_the_trial_goes_on_to_its_end(
    scheduler: Any, model: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    proxy = open_proxy(run, model, rank=2, workers=2)
    first = next_event(proxy)
    killed = time.monotonic()
    event = proxy._host.next.remote()
    os.kill(workers()[1].pid, signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayActorError):
        while True:  # what it told before
            ray.get(event, timeout=60)
            event = proxy._host.next.remote()
    until(lambda: not workers())
    seconds = time.monotonic() - killed
    print(f"the attempt had ended after {seconds:.1f} s")
    assert seconds < 60
    again = proxy.step()
    assert again["history"][-1]["step"] >= first["event"]["step"]
    assert proxy._losses.count == 1
    results = [again]
    while not results[-1]["done"]:
        results.append(proxy.step())
    assert results[-1].get("event", results[-1])["kind"] == "finished"
    (summary,) = tiny_sweep.summaries(run.path).values()
    assert summary["attempts"] == 2
    assert summary["provenance"]["device"] and summary["metrics"]["device_shared"] == 0
    rungs = [event["fraction"] for event in summary["history"] if event["kind"] == "rung"]
    assert rungs == [0.25, 0.5, 1.0]
    assert not (proxy._folder.path / "ray_train").exists()
    hosts_are_back(scheduler)
    score_together(scheduler, proxy._folder)
    hosts_are_back(scheduler)


def score_together(scheduler: Any, folder: TrialFolder) -> None:
    """Its workers score a finished trial on the report split, as where no device holds it alone."""
    need = ResourceRequest(workers=2)
    group = ray.get(scheduler.acquire.remote("a trial/report", "base", need))
    score = ray.get(group.score_report.remote(folder.place, None), timeout=120)
    ray.get(scheduler.release.remote("a trial/report"))
    written = folder.report_score()
    assert written is not None and written["metrics"] == score["metrics"]
    assert score["count"] == 4 and folder.is_sound()
    assert not (folder.path / "ray_train").exists()


def test_one_that_is_stopped_frees_its_workers_within_five_seconds(
    scheduler: Any, model: Path, tmp_path: Path
) -> None:
    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=3, workers=2)
    next_event(proxy)
    assert len(workers()) == 2
    proxy._folder.write_summary({"state": "stopped"})  # as the driver does before it goes on
    began = time.monotonic()
    proxy.cleanup()
    until(lambda: not workers())
    seconds = time.monotonic() - began
    print(f"two workers were freed after {seconds:.1f} s")
    assert seconds < 5
    assert not (proxy._folder.path / "checkpoints").exists()
    hosts_are_back(scheduler)


def test_an_interruption_saves_and_a_front_that_dies_or_hangs_leaves_no_worker(
    scheduler: Any, model: Path, tmp_path: Path
) -> None:
    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=4, workers=2)
    last = next_event(proxy)
    ray.get(scheduler.interrupt.remote())
    saved = sorted(proxy._folder.checkpoints_folder.glob("step-*"))
    assert int(saved[-1].name[5:]) >= last["event"]["step"]
    assert proxy.step() == {"interrupted": True, "units": proxy._units, "done": True}
    assert not workers()
    ray.get(scheduler.reopen.remote())
    history = proxy.step()["history"]
    assert history[-1]["step"] >= last["event"]["step"]
    kill_host(proxy)
    assert "history" in proxy.step()
    assert proxy._losses.count == 1
    ray.get(scheduler.replace.remote(proxy._trial_id))  # as of one that hangs
    until(lambda: not workers())
    hosts_are_back(scheduler)


def hosts_are_back(scheduler: Any) -> None:
    until(lambda: ray.get(scheduler.counts.remote()) == (2, 0, 0))


def workers() -> list[Any]:
    """The processes of Ray Train's workers that this test has started."""
    below = psutil.Process().children(recursive=True)
    return [each for each in below if "RayTrainWorker" in name_of(each)]


def name_of(process: Any) -> str:
    try:
        return str(process.cmdline()[0])
    except (psutil.Error, IndexError):
        return ""


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)
