"""Specification of the proxy on real hosts: a host may die, a trial goes on from its checkpoint."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import from_mapping
from orchestrator.hosts import HostShape, start_admission
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def admission() -> Iterator[Any]:
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
    actor = start_admission("admission", HostShape(1, 0, 1), provenance={})
    ray.get(actor.open.remote())
    yield actor
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


def open_proxy(run: RunFolder, model: Path, *, rank: int) -> Any:
    """The proxy of one trial that saves a checkpoint at every step."""
    from orchestrator.plan import Planner
    from orchestrator.proxy import TrialProxy

    execution = {"max_new_tokens": 4, "checkpoint_minutes": 1e-9}
    budget = {"train_examples": 96, "eval_examples": 4, "seed": 3}
    settings = from_mapping(tiny_sweep.mapping(str(model), execution=execution, budget=budget))
    knobs = {"model": str(model), "prompt": "statements", "sequence_length": 256, "rank": rank}
    spec = Planner(settings, device=dict(tiny_sweep.CPU)).spec(knobs)
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {})
    given = {"trial_id": spec.trial_id, "folder": str(folder.path), "base_key": spec.base_key}
    return TrialProxy({**given, "admission": "admission", "objective": "em_acc"})


def kill_host(proxy: Any) -> None:
    import ray

    pid = ray.get(proxy._host.__ray_call__.remote(lambda host: os.getpid()))
    os.kill(pid, signal.SIGKILL)


def test_a_trial_whose_host_dies_goes_on_elsewhere_from_its_checkpoint(
    admission: Any, model: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    proxy = open_proxy(run, model, rank=2)
    first = proxy.step()
    while "objective" not in first:
        first = proxy.step()
    kill_host(proxy)
    second = proxy.step()
    assert "failure" not in second
    assert second["history"][-1]["units"] >= first["units"]
    assert second["units"] > first["units"]
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
    admission: Any, model: Path, tmp_path: Path
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
    assert ray.get(admission.acquire.remote("the next", "a")) is not None
    ray.get(admission.release.remote("the next"))
