"""Run folders with curves, and snapshots of a sweep in an MLflow store, for comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.runs.ledger import TrialRecord
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial, new_run
from trainables.spec.events import Event
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

SYSTEM = {"cpu_utilization_percentage": 50.0, "system_memory_usage_megabytes": 1000.0}


def tracked_run(folder: Path, *, trials: int = 4, events: int = 8, questions: int = 4) -> RunFolder:
    """The run folder of an ended sweep: finished and stopped trials with `events` progress events
    each, a failed one, a baseline; some adapters and report scores."""
    run = new_run(folder, {**CONFIG, "search": {"algorithm": "random", "trials": trials}})
    run.write_state({"sweep_id": folder.name.encode().hex(), "trials_done": trials})
    for number in range(trials):
        _add(run, number, events=events, questions=questions)
    add_baseline(run, [0] * questions)
    run.write_text(run.report_file, "# Report\n")
    return run


def records(run: RunFolder) -> list[TrialRecord]:
    """The run's trials as records of a ledger, with all their events."""
    return [
        TrialRecord(folder.spec(), folder, str(summary["state"]), history=_history(summary))
        for folder in run.trials()
        if (summary := folder.summary()) is not None
    ]


def snapshot(uri: str, name: str) -> dict[str, dict[str, Any]]:
    """The content of a store for the sweep, by trial; asserts that no trial has two runs."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    shown = {run.data.tags["trial_id"]: _shown(client, run) for run in runs}
    assert len(shown) == len(runs), "a trial has two runs"
    parent = next(run.info.run_id for run in runs if run.data.tags["trial_id"] == "sweep")
    parents = {run.data.tags.get("mlflow.parentRunId", parent) for run in runs}
    assert parents == {parent}
    return shown


def _add(run: RunFolder, number: int, *, events: int, questions: int) -> TrialFolder:
    state = {1: "stopped", 2: "failed"}.get(number % 4, "finished")
    right = [int((place + number) % 3 == 0) for place in range(questions)]
    folder = add_trial(
        run,
        right=None if state == "failed" else right,
        report_right=[1, 0] if number == 0 else None,
        state=state,
        reason="loss is nan" if state == "failed" else "",
        metrics={"train_peak_memory_bytes": (64 + number) * 2**20},
        rank=4 + number,
        learning_rate=1e-4 * (number + 1),
    )
    if state == "finished":
        folder.adapter_folder.mkdir()
        (folder.adapter_folder / "adapter_config.json").write_text("{}")
    summary = folder.summary()
    assert summary is not None
    folder.write_summary({**summary, "history": _events(number, events, summary["metrics"])})
    folder.append_log("a line of the worker")
    return folder


def _events(number: int, count: int, metrics: dict[str, float]) -> list[dict[str, Any]]:
    told = [
        Event(
            "progress",
            step,
            step * 8,
            {"train_loss": 3.0 - step / count + number / 100, "learning_rate_now": 1e-4 * step},
            seconds=float(step),
            system=SYSTEM,
        )
        for step in range(1, count + 1)
    ]
    rung = Event("rung", count, count * 8, metrics, 1.0, float(count), SYSTEM)
    return [event.to_json() for event in [*told, rung]]


def _history(summary: dict[str, Any]) -> list[Event]:
    return [Event.from_json(event) for event in summary["history"]]


def _shown(client: Any, run: Any) -> dict[str, Any]:
    own = ("mlflow.parentRunId", "mlflow.user", "mirrored")
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": {name: text for name, text in run.data.tags.items() if name not in own},
        "points": {
            (name, point.step): point.value
            for name in run.data.metrics
            for point in client.get_metric_history(run.info.run_id, name)
        },
        "points_count": sum(
            len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics
        ),
        "artifacts": sorted(_paths(client, run.info.run_id)),
    }


def _paths(client: Any, run_id: str, path: str | None = None) -> list[str]:
    return [
        inner
        for item in client.list_artifacts(run_id, path)
        for inner in (_paths(client, run_id, item.path) if item.is_dir else [item.path])
    ]
