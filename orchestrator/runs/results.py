"""A run folder as values: its configuration, metrics, trials and predictions.

Missing and damaged files and an unknown task give warnings, never an exception: a report must be
possible during a sweep and after a crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.runs.derived_metrics import cost_metrics
from orchestrator.runs.lease_holder import is_alive, read_lease
from orchestrator.runs.sweep_metrics import SweepMetrics, sweep_metrics, task_fault
from orchestrator.runs.trial_result import RUNNING, Split, TrialResult
from trainables.errors import InputError, did_you_mean
from trainables.spec.events import Event
from trainables.spec.metric import TaskMetrics
from trainables.spec.states import INTERRUPTED, TRIAL
from trainables.storage.errors import StorageError
from trainables.storage.object_store import is_url
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import DamagedError
from trainables.storage.trial_folder import TrialFolder

Row = Mapping[str, Any]


def open_run(path: str | Path) -> RunFolder:
    """The run folder at `path`, or at a URL, of which a copy is fetched.

    Raises InputError, with near misses, if it is not one, and StorageError.
    """
    if is_url(str(path)):
        return _open_in_bucket(str(path))
    folder = Path(path)
    if _is_run(folder):
        return RunFolder(folder)
    inside = sorted(str(item) for item in folder.glob("*") if _is_run(item))
    if inside:
        raise InputError(f"{folder}: not a run folder, but it holds some: {', '.join(inside)}.")
    beside = [item.name for item in folder.parent.glob("*") if _is_run(item)]
    hint = did_you_mean(folder.name, beside) if beside else ""
    what = "not a run folder (no sweep.yaml in it)" if folder.exists() else "no such folder"
    raise InputError(f"{folder}: {what}. Give the folder of a sweep, as runs/NAME.{hint}")


def read_trials(run: RunFolder, *, is_driven: bool | None = None) -> list[TrialResult]:
    """Every trial and baseline of the run, in the order in which they were planned.

    One that has not ended is running while a driver drives the run, else interrupted; without
    `is_driven` a driver that holds the run is taken to do so.
    """
    if is_driven is None:
        holder = read_lease(run.lock_file)
        is_driven = holder is not None and is_alive(holder)
    undone, metrics = RUNNING if is_driven else INTERRUPTED, read_metrics(run).task
    return [_read_trial(folder, undone=undone, metrics=metrics) for folder in run.trials()]


def damage(run: RunFolder) -> list[str]:
    """What earlier starts found damaged and set aside, adapters that are not as they were written,
    and what is no part of the run. Reads every adapter.
    """
    aside = sorted(run.trials_folder.glob("*/*.damaged"))
    return [
        *(f"{file}: was found damaged and set aside; delete it once seen" for file in aside),
        *(
            f"{file}: damaged or gone: not the adapter that was scored; don't use it"
            for folder in run.trials()
            for file in folder.damaged_adapter()
        ),
        *(f"{place}: its spec is gone, so it is no trial any more" for place in run.without_spec()),
        *(f"{link}: a symbolic link; not followed" for link in run.links()),
    ]


def read_metrics(run: RunFolder) -> SweepMetrics:
    """The metrics of the run's task; a trial's spec names it if sweep.yaml can't be read."""
    config, _ = read_config(run)
    tasks = (_mapping(folder, folder.spec_file, []).get("task") for folder in run.trials())
    task = config.get("task") or next((name for name in tasks if name), None)
    return sweep_metrics({**config, "task": task})


def read_config(run: RunFolder) -> tuple[Mapping[str, Any], list[str]]:
    """The sweep's configuration and warnings; an empty one if it can't be read.

    That its task is unknown is a warning.
    """
    from orchestrator.config.yaml_loader import read_yaml

    try:
        value = read_yaml(run.sweep_file)
    except InputError as error:
        return {}, list(error.messages)
    if not isinstance(value, Mapping):
        return {}, [f"{run.sweep_file}: holds no mapping"]
    fault = task_fault(value)
    return value, [f"{run.sweep_file}: {fault}"] if fault else []


def read_predictions(
    folder: TrialFolder, split: Split = "selection"
) -> tuple[list[Row], list[str]]:
    """The split's predictions, one row per question id, and warnings; none if there is no file.

    None either, and a warning, if the file is not the one that the trial's scores are of.
    """
    file = folder.predictions_file(split)
    if split == "report" and folder.report_score() is None:
        return [], []  # nothing says that the answers are whole
    if file in folder.damaged_files():
        return [], [_not_scored(file)]
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        return [], [] if missing else [f"{file}: {error}"]
    rows: dict[str, Row] = {}
    warnings = []
    for number, line in enumerate(lines, start=1):
        row = _prediction(line)
        if row is None:
            warnings.append(f"{file}:{number}: not a prediction; left out")
        else:
            rows[str(row["id"])] = row
    return list(rows.values()), warnings


def _not_scored(file: Path) -> str:
    return f"{file}: damaged or gone: not the answers that were scored; left out"


def _open_in_bucket(url: str) -> RunFolder:
    from orchestrator.runs.bucket_lease import fetch

    run = RunFolder.at(url)
    try:
        fetch(run)
    except StorageError as error:
        raise InputError(str(error)) from error
    if not _is_run(run.path):
        raise InputError(
            f"{run.place}: no run (no sweep.yaml there). Give the URL of a sweep, as "
            "s3://BUCKET/FOLDER/NAME."
        )
    return run


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "sweep.yaml").is_file() or (folder / "trials").is_dir())


def _read_trial(folder: TrialFolder, *, undone: str, metrics: TaskMetrics) -> TrialResult:
    warnings: list[str] = []
    spec = _mapping(folder, folder.spec_file, warnings)
    summary = _mapping(folder, folder.summary_file, warnings)
    progress = {} if summary else _mapping(folder, folder.progress_file, warnings)
    score = _mapping(folder, folder.report_score_file, warnings)
    prediction = _mapping(folder, folder.estimate_file, warnings)
    warnings += [_not_scored(file) for file in folder.damaged_files()]
    source = summary or progress
    return TrialResult(
        folder=folder,
        role=str(summary.get("role") or spec.get("role") or TRIAL),
        state=str(summary.get("state") or undone),
        reason=str(summary.get("reason") or ""),
        knobs=_as_mapping(summary.get("configuration")) or _as_mapping(spec.get("knobs")),
        metrics=_numbers(source.get("metrics")),
        report_metrics=_numbers(score.get("metrics")),
        report_count=int(_number(score.get("count"))),
        step=int(_number(source.get("step"))),
        units=int(_number(source.get("units"))),
        fraction=_number(source.get("fraction")),
        seconds=_numbers(summary.get("seconds")) or {"total": _number(progress.get("seconds"))},
        history=_history(summary.get("history"), folder, warnings),
        facts=_as_mapping(summary.get("facts")),
        provenance=_as_mapping(summary.get("provenance")),
        attempts=int(_number(summary.get("attempts"))),
        task_metrics=metrics,
        warnings=tuple(warnings),
        model_digest=str(spec.get("model_digest") or ""),
        task_identity=_as_mapping(spec.get("task_identity")),
        costs=cost_metrics(_numbers(source.get("metrics")), prediction),
    )


def _mapping(folder: TrialFolder, file: Path, warnings: list[str]) -> Mapping[str, Any]:
    try:
        return folder.read(file)
    except FileNotFoundError:
        return {}
    except (OSError, DamagedError) as error:
        warnings.append(f"{file}: {error}")
        return {}


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0


def _numbers(value: Any) -> dict[str, float]:
    return {name: item for name, item in _as_mapping(value).items() if _is_number(item)}


def _is_number(value: Any) -> bool:
    finite = isinstance(value, int | float) and abs(value) < float("inf")
    return finite and not isinstance(value, bool)


def _history(value: Any, folder: TrialFolder, warnings: list[str]) -> tuple[Event, ...]:
    events = []
    for item in value if isinstance(value, list) else []:
        try:
            event = Event.from_json(item)
        except (KeyError, TypeError, AttributeError) as error:
            warnings.append(f"{folder.summary_file}: history: {error}")
        else:
            events.append(event)
    return tuple(events)


def _prediction(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, Mapping) and "id" in row else None
