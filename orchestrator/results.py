"""A run folder read as values: its configuration, trials and predictions. LIGHT.

A folder that lacks pieces or holds torn ones gives a result with warnings, never an exception:
a report must be readable in the middle of a sweep and after a crash.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.trial_result import RUNNING, Split, TrialResult
from trainables.errors import InputError, did_you_mean
from trainables.run_folder import RunFolder, TrialFolder
from trainables.spec import INTERRUPTED, TRIAL, Event

FRESH_SECONDS = 60.0  # a trial without news for longer is not taken to run
Row = Mapping[str, Any]


def open_run(path: str | Path) -> RunFolder:
    """The run folder at `path`; raises InputError, with near misses, if it is not one."""
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


def read_trials(run: RunFolder) -> list[TrialResult]:
    """Every trial and baseline of the run, in the order in which they were planned."""
    return [_read_trial(folder) for folder in run.trials()]


def read_config(run: RunFolder) -> tuple[Mapping[str, Any], list[str]]:
    """The sweep's configuration and warnings; an empty one if it can't be read."""
    import yaml

    try:
        value = yaml.safe_load(run.sweep_file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return {}, [f"{run.sweep_file}: {error}"]
    if not isinstance(value, Mapping):
        return {}, [f"{run.sweep_file}: holds no mapping"]
    return value, []


def read_predictions(
    folder: TrialFolder, split: Split = "selection"
) -> tuple[list[Row], list[str]]:
    """The split's predictions, one row per question id, and warnings; none if there is no file."""
    file = folder.predictions_file(split)
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


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and ((folder / "sweep.yaml").is_file() or (folder / "trials").is_dir())


def _read_trial(folder: TrialFolder) -> TrialResult:
    warnings: list[str] = []
    spec = _mapping(folder.spec_file, warnings)
    summary = _mapping(folder.summary_file, warnings)
    progress = {} if summary else _mapping(folder.progress_file, warnings)
    score = _mapping(folder.report_score_file, warnings)
    source = summary or progress
    state = summary.get("state") or _state_of_undone(folder, progress)
    return TrialResult(
        folder=folder,
        role=str(summary.get("role") or spec.get("role") or TRIAL),
        state=str(state),
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
        warnings=tuple(warnings),
    )


def _mapping(file: Path, warnings: list[str]) -> Mapping[str, Any]:
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.append(f"{file}: {error}")
        return {}
    if not isinstance(value, Mapping):
        warnings.append(f"{file}: holds no mapping")
        return {}
    return value


def _state_of_undone(folder: TrialFolder, progress: Mapping[str, Any]) -> str:
    if progress.get("state") not in (None, RUNNING):
        return INTERRUPTED
    try:
        news = _number(progress.get("updated")) or folder.spec_file.stat().st_mtime
    except OSError:
        return INTERRUPTED
    return RUNNING if time.time() - news < FRESH_SECONDS else INTERRUPTED


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
        except TypeError as error:
            warnings.append(f"{folder.summary_file}: history: {error}")
        else:
            events.append(event)
    return tuple(events)


def _prediction(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, Mapping) and "id" in row else None
