"""Writes the content of a run folder to a tracker; may be repeated.

Names of runs, parameters, tags and tables are made here from the files alone, in the same way for a
running sweep and for one that is mirrored anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from orchestrator.analysis.costs import TRAIN_FLOPS
from orchestrator.analysis.pareto import front
from orchestrator.runs.derived_metrics import cost_metrics
from orchestrator.runs.predictions import read_predictions
from orchestrator.runs.results import read_config, read_labels, read_metrics, read_trials
from orchestrator.runs.sweep_metrics import sweep_metrics
from orchestrator.runs.trial_result import Split, TrialResult, ranked
from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.tracker import (
    Row,
    RunEnd,
    RunStart,
    SweepEnd,
    SweepIdentity,
    Tracker,
    TrackingError,
)
from trainables.errors import InputError
from trainables.spec.events import Event
from trainables.spec.metric import MetricSpec, TaskMetrics
from trainables.spec.states import INTERRUPTED
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

SWEEP_PARAMS = ("task", "objective", "budget", "search", "scheduler")
TABLES: Mapping[str, Split] = {
    "predictions.json": "selection",
    "report_predictions.json": "report",
}
FIRST_COLUMNS = ("id", "question", "gold", "prediction", "correct")
OF_THE_BEST = (  # whatever the task, after the metrics of its headline
    "eval_loss",
    "train_peak_memory_bytes",
    "eval_peak_memory_bytes",
    "train_flops",
    "eval_flops",
    "device_seconds",
)


def sweep_identity(run: RunFolder) -> SweepIdentity:
    """The identity of the run's sweep; raises InputError if the folder has no sweep id."""
    sweep_id = (run.state() or {}).get("sweep_id")
    if not isinstance(sweep_id, str) or not sweep_id.isalnum():
        raise InputError(
            f"{run.state_file}: does not name the sweep (sweep_id), so its runs can't be found or "
            "made. Start the sweep once more with the command that made it."
        )
    config, _ = read_config(run)
    params = {name: config[name] for name in SWEEP_PARAMS if name in config}
    name = run.path.resolve().name
    return SweepIdentity(sweep_id, name, _started(run), params=params)


def mirror(run: RunFolder, tracker: Tracker, *, is_driven: bool) -> None:
    """Writes every trial of the run whose files are undamaged to an opened tracker.

    A trial that has not ended is running if a driver works on the sweep (`is_driven`), else
    interrupted. Raises TrackingError.
    """
    for folder, label in labelled_trials(run):
        mirror_trial(tracker, folder, label=label, is_driven=is_driven)


def mirror_later(run: RunFolder, tracker: BackgroundTracker, *, is_driven: bool) -> None:
    """As `mirror`, in the thread of the tracker."""
    for folder, label in labelled_trials(run):
        tracker.do(partial(mirror_trial, folder=folder, label=label, is_driven=is_driven))


def labelled_trials(run: RunFolder) -> Iterator[tuple[TrialFolder, str]]:
    """Every trial of the run with its label."""
    labels = read_labels(run)
    for folder in run.trials():
        yield folder, labels.told(folder.trial_id)


def mirror_trial(tracker: Tracker, folder: TrialFolder, *, label: str, is_driven: bool) -> bool:
    """Writes one trial for `mirror`; returns False, and writes nothing, if it is damaged."""
    if not folder.is_sound():
        return False  # the report lists its files
    if is_driven and not folder.done:
        start_trial(tracker, folder, label=label)
    else:
        finish_trial(tracker, folder, label=label)
    return True


def start_trial(tracker: Tracker, folder: TrialFolder, *, label: str) -> None:
    """Creates or reopens the run of a trial that has a spec; `label` is its own in its sweep."""
    if folder.is_sound():
        with _readable(folder):
            start = _start(folder, label)
        tracker.start(start)


def finish_trial(tracker: Tracker, folder: TrialFolder, *, label: str) -> None:
    """Ends a trial's run with its summary and, if there is one, its report score.

    May be called again after the report split was scored.
    """
    if folder.is_sound():
        with _readable(folder):
            end = _end(folder, label)
        tracker.finish(end)


def end_sweep(
    run: RunFolder, tracker: Tracker, *, state: Literal["finished", "interrupted"]
) -> None:
    """Ends the parent run with the best trial's metrics and the report, and adds the adapters of
    the Pareto fronts to the runs of their trials."""
    results, metrics = read_trials(run, is_driven=False), read_metrics(run)
    best = next(iter(ranked(results, metrics.ranking)), None)
    files = (
        run.report_file,
        run.results_file,
        *run.flips_files("quantization"),
        run.pareto_file,
        run.flops_file,
        run.sweep_file,
    )
    tracker.close(
        SweepEnd(
            state,
            metrics=_of_the_best(best.metrics if best else {}, metrics.task),
            artifacts=[file for file in files if file.is_file()],
            adapters=_adapters([*front(results), *front(results, cost=TRAIN_FLOPS)]),
        )
    )


def _of_the_best(measured: Mapping[str, float], metrics: TaskMetrics) -> dict[str, float]:
    names = dict.fromkeys([*(metric.name for metric in metrics.headline), *OF_THE_BEST])
    return {f"best_{name}": measured[name] for name in names if name in measured}


def trial_name(label: str, trial_id: str) -> str:
    """The name of a trial's run: 'small nf4 r8 a16 lr1.3e-03 b8x2 · 3f9c2a'."""
    return f"{label} · {trial_id[:6]}"


def trial_params(spec: TrialSpec) -> dict[str, Any]:
    """Every knob under its name in the space, and the trial id."""
    return {**spec.knobs, "trial_id": spec.trial_id}


def trial_tags(spec: TrialSpec) -> dict[str, str]:
    """The tags that identify a trial beside its knobs."""
    tags = {"role": spec.role, "task": spec.task, "model_digest": spec.model_digest}
    return {**tags, **({"revision": spec.revision} if spec.revision else {})}


@contextmanager
def _readable(folder: TrialFolder) -> Iterator[None]:
    """Turns errors of the disk into TrackingError."""
    try:
        yield
    except OSError as error:
        raise TrackingError(f"{folder.path} can't be read: {error.strerror or error}") from error


def _started(run: RunFolder) -> float:
    """The time at which the first trial's spec was written; now for a new sweep."""
    first = next(run.trials(), None)
    return first.spec_file.stat().st_mtime if first else time.time()


def _start(folder: TrialFolder, label: str) -> RunStart:
    spec = folder.spec()
    return RunStart(
        folder.trial_id,
        name=trial_name(label, spec.trial_id),
        started=folder.spec_file.stat().st_mtime,
        params=trial_params(spec),
        tags=trial_tags(spec),
    )


def _end(folder: TrialFolder, label: str) -> RunEnd:
    summary = folder.summary() or {"state": INTERRUPTED, "reason": "it has not ended"}
    facts = summary.get("facts") or {}
    metrics = _numbers(summary.get("metrics") or {})
    costs = cost_metrics(metrics, folder.estimate())
    asked = {name: (facts.get("selection") or {}).get(name) for name in ("context", "evidence")}
    return RunEnd(
        _start(folder, label),
        state=summary["state"],
        reason=summary.get("reason") or "",
        history=[_event(event) for event in summary.get("history", ())],
        metrics={**metrics, **costs, **_report_metrics(folder)},
        tags=_flat({**(summary.get("provenance") or {}), **facts, **asked}),
        artifacts=_artifacts(folder),
        tables=_tables(folder),
    )


def _event(written: Mapping[str, Any]) -> Event:
    event = Event.from_json(written)
    return replace(event, metrics=_numbers(event.metrics), system=_numbers(event.system))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers; files have null for others."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _report_metrics(folder: TrialFolder) -> dict[str, float]:
    report = folder.report_score()
    if report is None:
        return {}
    metrics = {f"report_{name}": value for name, value in _numbers(report["metrics"]).items()}
    return {**metrics, "report_questions": report["count"]}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _artifacts(folder: TrialFolder) -> tuple[Path, ...]:
    files = (folder.spec_file, folder.summary_file, folder.log_file)
    return tuple(file for file in files if file.is_file())


def _tables(folder: TrialFolder) -> dict[str, list[Row]]:
    """The predictions on each split, by file name."""
    spec = folder.spec()
    verdict = sweep_metrics({"task": spec.task, "data": spec.task_options}).task.verdict
    rows = {name: read_predictions(folder, split)[0] for name, split in TABLES.items()}
    return {
        name: [_table_row(row, verdict) for row in found] for name, found in rows.items() if found
    }


def _table_row(row: Row, verdict: MetricSpec | None) -> Row:
    """The row with FIRST_COLUMNS first; `correct` is by the task's verdict."""
    is_correct = {"correct": bool(row.get(verdict.per_question_key))} if verdict else {}
    values = {**row, **is_correct}
    first = [name for name in FIRST_COLUMNS if name in values]
    return {name: values[name] for name in (*first, *(name for name in row if name not in first))}


def _adapters(results: Sequence[TrialResult]) -> dict[str, Path]:
    folders = [item.folder for item in results]
    for folder in folders:
        with _readable(folder):
            folder.pull_trained(model=False)
    return {
        folder.trial_id: folder.adapter_folder
        for folder in folders
        if folder.adapter_folder.is_dir() and not folder.unusable_adapter()
    }
