"""The Tune trial on real hosts: if a host dies, hangs or is needed elsewhere, the trial resumes
from its checkpoint or ends with the reason.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.hosts.host_scheduler import start_host_scheduler
from orchestrator.cluster.hosts.host_shape import HostShape
from orchestrator.config.reader import from_mapping
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def host_scheduler() -> Iterator[Any]:
    import ray

    environment = {"PYTHONPATH": str(tiny_sweep.REPOSITORY), "OMP_NUM_THREADS": "1"}
    ray.init(
        address="local",
        num_cpus=2,
        namespace="sweep",
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    actor = start_host_scheduler("scheduler", HostShape(1, 0, 1), provenance={})
    ray.get(actor.open.remote())
    yield actor
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


def open_proxy(run: RunFolder, model: Path, *, rank: int, workers: int = 1, **limits: float) -> Any:
    """The proxy of one trial that saves a checkpoint at every step."""
    from orchestrator.execution.tune_trial import TuneTrial
    from orchestrator.planning.planner import Planner

    execution = {"max_new_tokens": 4, "checkpoint_minutes": 1e-9}
    budget = {"train_examples": 96, "eval_examples": 4, "seed": 3}
    settings = from_mapping(tiny_sweep.mapping(str(model), execution=execution, budget=budget))
    knobs = {"model": str(model), "prompt": "statements", "sequence_length": 256, "rank": rank}
    knobs["workers"] = workers
    spec = Planner(settings, device=dict(tiny_sweep.CPU)).spec(knobs)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    given = {"trial_id": spec.trial_id, "folder": str(folder.path), "base_key": spec.base_key}
    watched = {"trial_seconds": None, "silent_seconds": None, **limits}
    asked = {"task": settings.task, "objective": settings.objective}
    return TuneTrial(
        {**given, **asked, "data": {}, "host_scheduler": "scheduler", "limits": watched}
    )


def next_event(proxy: Any) -> dict[str, Any]:
    """The next result that is not the history which a start begins with."""
    result: dict[str, Any] = proxy.step()
    return proxy.step() if "history" in result else result


def kept(proxy: Any) -> set[str]:
    """What lies in the trial's folder."""
    return {file.name for file in proxy._folder.path.iterdir()}


def kill_host(proxy: Any) -> None:
    import ray

    pid = ray.get(proxy._host.__ray_call__.remote(lambda host: os.getpid()))
    os.kill(pid, signal.SIGKILL)


def test_a_trial_whose_host_dies_goes_on_elsewhere_from_its_checkpoint(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    proxy = open_proxy(run, model, rank=2)
    first = proxy.step()
    while "objective" not in first:
        first = proxy.step()
    kill_host(proxy)
    resumed = proxy.step()
    assert "failure" not in resumed and "event" not in resumed
    assert resumed["history"][-1]["units"] >= first["units"]
    assert proxy._losses.count == 1
    second = proxy.step()
    assert second["units"] > first["units"]
    assert proxy._losses.count == 0  # it has got further since
    results = [second]
    while not results[-1]["done"]:
        results.append(proxy.step())
    assert results[-1]["event"]["kind"] == "finished"
    assert "objective" in results[-1]
    (summary,) = tiny_sweep.summaries(run.path).values()
    assert summary["attempts"] == 2
    rungs = [event["fraction"] for event in summary["history"] if event["kind"] == "rung"]
    assert rungs == [0.25, 0.5, 1.0]


def test_a_trial_that_loses_its_host_again_and_again_has_failed(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=4)
    for _ in range(3):
        assert "failure" not in proxy.step()
        kill_host(proxy)
    result = proxy.step()
    assert result["done"]
    assert "its host died 3 times" in result["failure"]["reason"]
    assert not result["failure"]["infeasible"]
    proxy.cleanup()
    assert ray.get(host_scheduler.acquire.remote("the next", "a")) is not None
    ray.get(host_scheduler.release.remote("the next"))


def test_a_host_that_died_while_it_was_free_is_no_loss_of_the_next_trial(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    idle = ray.get(host_scheduler.acquire.remote("before", "a"))
    ray.get(host_scheduler.release.remote("before"))
    ray.kill(idle)
    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=3)
    assert "event" in next_event(proxy)
    assert proxy._losses.count == 0
    proxy.cleanup()


def test_a_trial_whose_host_is_taken_away_on_notice_goes_on_elsewhere(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=5)
    first, lost = next_event(proxy), proxy._host
    ray.get(lost.interrupt.remote())
    second = proxy.step()
    assert proxy._host != lost
    assert second["history"][-1]["step"] >= first["event"]["step"]
    assert proxy._losses.count == 0
    proxy.cleanup()


def test_a_trial_that_has_been_stopped_leaves_no_checkpoint(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=6)
    while "objective" not in proxy.step():
        pass
    assert "checkpoints" in kept(proxy)
    proxy._folder.write_summary({"state": "stopped"})  # as the driver does before it goes on
    proxy.cleanup()
    assert not {"checkpoints", "adapter"} & kept(proxy)
    assert {"spec.json", "summary.json", "predictions.jsonl", "worker.log"} <= kept(proxy)


def test_a_trial_that_has_used_up_its_hours_is_stopped_and_its_host_is_free(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=7, trial_seconds=0.036)
    results = [proxy.step()]
    while not results[-1]["done"]:
        results.append(proxy.step())
    assert results[-1]["stopped"].startswith("limits.trial_hours: its 1e-05 hours were used up")
    assert f"at step {results[-1]['event']['step']} (" in results[-1]["stopped"]
    assert results[-1]["event"]["fraction"] < 1
    assert "checkpoints" not in kept(proxy)
    assert ray.get(host_scheduler.acquire.remote("the next", "a")) is not None
    ray.get(host_scheduler.release.remote("the next"))


def test_a_trial_that_hangs_is_ended_and_its_log_says_where(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=8)
    last = next_event(proxy)
    hung = proxy._host
    proxy._limits["silent_seconds"] = 3.0
    ray.get(hung.__ray_call__.remote(hang_from_now_on))
    result = proxy.step()
    assert result["done"]
    reason = result["failure"]["reason"]
    assert reason.startswith("no sign of life for 0.05 minutes, its last step was ")
    assert f"step was {last['event']['step']}:" in reason
    log = proxy._folder.log_file.read_text()
    assert "Timeout" in log
    assert "a_collective_that_never_returns" in log
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(hung.ping.remote())
    assert ray.get(host_scheduler.acquire.remote("the next", "a")) is not None
    ray.get(host_scheduler.release.remote("the next"))


class Deaf:
    """A host whose trial never ends."""

    def close(self, *, discard: bool) -> None:
        time.sleep(600)


def test_a_host_that_hangs_while_its_trial_ends_is_not_waited_for_without_end(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=8, silent_seconds=1.0)
    proxy._host = ray.remote(num_cpus=0)(Deaf).remote()
    began = time.monotonic()
    proxy.leave()
    assert 1 <= time.monotonic() - began < 20


def test_a_trial_that_outgrows_its_share_has_one_more_try_with_the_device_alone(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    proxy = open_proxy(RunFolder(tmp_path / "run"), model, rank=11)
    proxy._folder.write_estimate({"device_memory_bytes": 1 << 20})
    assert proxy._need().memory_bytes == 1 << 20
    first = next_event(proxy)
    ray.get(proxy._host.__ray_call__.remote(out_of_memory_from_now_on))
    again = proxy.step()
    assert again["history"][-1]["step"] == first["event"]["step"]
    assert proxy._need().memory_bytes is None
    ray.get(proxy._host.__ray_call__.remote(out_of_memory_from_now_on))
    last = proxy.step()
    assert last["failure"]["infeasible"]
    assert "more than its share of the device, 3.00 GiB" in last["failure"]["reason"]


def test_when_the_sweep_ends_running_and_waiting_trials_leave_and_none_is_started(
    host_scheduler: Any, model: Path, tmp_path: Path
) -> None:
    import ray

    run = RunFolder(tmp_path / "run")
    running, waiting = (open_proxy(run, model, rank=rank) for rank in (9, 10))
    last = next_event(running)
    place = host_scheduler.acquire.remote(waiting._trial_id, "a")
    ray.get(host_scheduler.interrupt.remote())
    assert ray.get(place) is None
    saved = sorted((running._folder.checkpoints_folder).glob("step-*"))
    assert int(saved[-1].name[5:]) >= last["event"]["step"]
    for proxy in (running, waiting):
        assert proxy.step() == {"interrupted": True, "units": proxy._units, "done": True}
        proxy.cleanup()
    ray.get(host_scheduler.reopen.remote())


def hang_from_now_on(host: Any) -> None:
    """Its trial's next event never comes."""
    from trainables.workers.heartbeat import Watchdog

    host._running.close()
    host._running = a_collective_that_never_returns()
    host._watchdog = Watchdog(host._folder, interrupted=host._interrupted, silent_seconds=3.0)


def a_collective_that_never_returns() -> Iterator[Any]:
    time.sleep(600)
    yield


def out_of_memory_from_now_on(host: Any) -> None:
    """Its trial's next event needs more than its share."""
    host._running.close()
    host._running = more_than_there_is()
    host._share_bytes = 3 << 30


def more_than_there_is() -> Iterator[Any]:
    raise MemoryError
    yield
