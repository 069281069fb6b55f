"""The contract of every tracker: repeating the calls of a sweep leaves one run per trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.tracker import RunEnd, RunStart, SweepEnd, SweepIdentity, Tracker
from tests.orchestrator.tracking.mlflow_servers import mlflow_server
from trainables.spec.events import Event

SWEEP = SweepIdentity("s1", "quick", 1e9, tags={"git_commit": "0123abc"}, params={"task": "finqa"})
Make = Callable[[], Tracker]


def _progress(units: int, **metrics: float) -> Event:
    return Event("progress", units // 8, units, metrics, seconds=units / 10)


def _sweep(tracker: Tracker, artifact: Path) -> None:
    tracker.open(SWEEP)
    start = RunStart("t1", "small nf4", 1e9, params={"rank": 8})
    tracker.start(start)
    tracker.log("t1", [_progress(8, train_loss=3.0), _progress(16, train_loss=2.0)])
    tracker.finish(RunEnd(start, "finished", metrics={"em_acc": 0.5}, artifacts=[artifact]))
    tracker.close(SweepEnd("finished", metrics={"best_em_acc": 0.5}, artifacts=[artifact]))


@pytest.fixture(scope="session")
def sqlite_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('runs')}/mlflow.db"


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def make(request: pytest.FixtureRequest) -> Make:
    uri = request.getfixturevalue(f"{request.param}_uri")
    return lambda: MLflowTracker(uri)


def test_takes_a_sweeps_calls_twice_in_the_foreground_and_in_the_background(
    make: Make, tmp_path: Path
) -> None:
    artifact = tmp_path / "report.md"
    artifact.write_text("# Report\n")
    warnings: list[str] = []
    _sweep(make(), artifact)
    background = BackgroundTracker(make(), warn=warnings.append)
    _sweep(background, artifact)
    assert not warnings
    assert not background.incomplete


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("server", marks=pytest.mark.slow)])
def test_a_repeated_sweep_is_one_parent_run_with_one_nested_run(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    uri = request.getfixturevalue(f"{kind}_uri")
    artifact = tmp_path / "report.md"
    artifact.write_text("# Report\n")
    for _ in range(2):
        _sweep(MLflowTracker(uri), artifact)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("quick")
    runs: dict[str, Any] = {
        run.data.tags["trial_id"]: run for run in client.search_runs([experiment.experiment_id])
    }
    assert set(runs) == {"sweep", "t1"}
    parent, trial = runs["sweep"], runs["t1"]
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (trial.data.tags["sweep_id"], trial.data.tags["state"]) == ("s1", "finished")
    assert trial.data.params == {"rank": "8"}
    assert (trial.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    history = client.get_metric_history(trial.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(8, 3.0), (16, 2.0)]
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["report.md"]
    assert [item.path for item in client.list_artifacts(trial.info.run_id)] == ["report.md"]
