"""A run folder as values: its configuration, metrics and trials.

Missing and damaged files and an unknown task give warnings, never an exception: a report must be
possible during a sweep and after a crash.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.runs.derived_metrics import cost_metrics
from orchestrator.runs.lease_holder import is_alive, read_lease
from orchestrator.runs.predictions import not_scored
from orchestrator.runs.sweep_metrics import SweepMetrics, sweep_metrics, task_fault
from orchestrator.runs.trial_label import TrialLabels
from orchestrator.runs.trial_result import RUNNING, UNREADABLE, TrialResult
from orchestrator.space.grammar import parse_space
from trainables.errors import InputError, did_you_mean
from trainables.spec.events import Event
from trainables.spec.metric import TaskMetrics
from trainables.spec.states import INTERRUPTED, TRIAL
from trainables.storage.errors import StorageError
from trainables.storage.object_store import is_url
from trainables.storage.run_folder import RunFolder, refusal
from trainables.storage.sealed_json import DamagedError
from trainables.storage.trial_folder import TrialFolder
from trainables.storage.trial_reader import DAMAGED

_DONT_USE = "not the adapter that was scored; don't use it"
_UNCHECKED = "whether it is the adapter that was scored is not known"


def open_run(path: str | Path) -> RunFolder:
    """The run folder at `path`; of a URL a copy is fetched.

    Raises InputError, with similar names, if it is no run folder or may not be read, and
    StorageError.
    """
    if is_url(str(path)):
        return _open_in_bucket(str(path))
    try:
        return _open_folder(Path(path))
    except PermissionError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}). {_way_to_read(path)}"
        ) from error


def _open_folder(folder: Path) -> RunFolder:
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

    A trial that has not ended is running if a driver works on the run, else interrupted; one whose
    summary may not be read is unreadable.
    `is_driven` says whether one does; None: whether one holds the lease.
    """
    if is_driven is None:
        holder = read_lease(run.lock_file)
        is_driven = holder is not None and is_alive(holder)
    undone, metrics = RUNNING if is_driven else INTERRUPTED, read_metrics(run).task
    found = [_read_trial(folder, undone=undone, metrics=metrics) for folder in run.trials()]
    labels = _labels(run, models=[item.knobs.get("model") for item in found])
    return [
        replace(
            item,
            label=labels.of(item.trial_id, item.knobs),
            model_name=labels.model_name(item.knobs),
        )
        for item in found
    ]


def read_labels(run: RunFolder) -> TrialLabels:
    """The labels of the run's trials, which `read_trials` gives them."""
    knobs = {
        folder.trial_id: _as_mapping(_mapping(folder, folder.spec_file, []).get("knobs"))
        for folder in run.trials()
    }
    labels = _labels(run, models=[found.get("model") for found in knobs.values()])
    for trial_id, found in knobs.items():
        if found:  # else its spec is damaged
            labels.of(trial_id, found)
    return labels


def closed(run: RunFolder) -> list[str]:
    """Warnings about files and folders of the run that may not be read here."""
    return [
        f"{place}: can't be read ({reason}), so what it holds is not shown. {_way_to_read(place)}"
        for place, reason in run.closed().items()
        if place != run.sweep_file  # `read_config` says so
    ]


def damage(run: RunFolder) -> list[str]:
    """Warnings about damaged files: those set aside at earlier starts, adapters that are not as
    they were written or may not be read, trials without a spec, symbolic links. Reads every
    adapter.
    """
    aside = sorted(run.trials_folder.glob("*/*.damaged"))
    return [
        *(f"{file}: was found damaged and set aside; delete it once seen" for file in aside),
        *(
            f"{file}: {fault}: {_DONT_USE if fault == DAMAGED else _UNCHECKED}"
            for folder in run.trials()
            for file, fault in folder.unusable_adapter().items()
        ),
        *(f"{place}: its spec is gone, so it is no trial any more" for place in run.without_spec()),
        *(f"{link}: a symbolic link; not followed" for link in run.links()),
    ]


def read_metrics(run: RunFolder) -> SweepMetrics:
    """The metrics of the run's task; a trial's spec names it if sweep.yaml can't be read."""
    config, _ = read_config(run)
    if config.get("task"):
        return sweep_metrics(config)
    specs = (_mapping(folder, folder.spec_file, []) for folder in run.trials())
    spec = next((found for found in specs if found.get("task")), None)
    of_spec = {"task": spec["task"], "data": spec.get("task_options")} if spec else {}
    return sweep_metrics({**config, **of_spec})


def read_config(run: RunFolder) -> tuple[Mapping[str, Any], list[str]]:
    """The sweep's configuration, empty if it can't be read, and warnings.

    An unknown task is a warning.
    """
    from orchestrator.config.yaml_loader import read_yaml

    try:
        value = read_yaml(run.sweep_file)
    except InputError as error:
        return {}, list(error.messages)
    if not isinstance(value, Mapping):
        return {}, [f"{run.sweep_file}: holds no mapping"]
    fault = task_fault(value) if "task" in value else None
    instead = "Trials are ranked and compared by eval loss instead of its metrics."
    return value, [f"{run.sweep_file}: {fault} {instead}"] if fault else []


def _way_to_read(place: str | Path) -> str:
    return f"Its owner can let you: {shlex.join(['chmod', '-R', 'a+rX', str(place)])}"


def _labels(run: RunFolder, *, models: Iterable[object]) -> TrialLabels:
    """Labels that tell no trial yet; of a space that can't be read, by the trials alone."""
    config, _ = read_config(run)
    try:
        space = parse_space(config.get("space"))
    except InputError:
        space = None
    return TrialLabels(space, models=[str(model) for model in models if model])


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
    is_unread = not summary and refusal(folder.summary_file)
    unread = "its summary can't be read here" if is_unread else ""
    progress = {} if summary else _mapping(folder, folder.progress_file, warnings)
    score = _mapping(folder, folder.report_score_file, warnings)
    prediction = _mapping(folder, folder.estimate_file, warnings)
    warnings += [not_scored(file, fault) for file, fault in folder.unusable_files().items()]
    source = summary or progress
    return TrialResult(
        folder=folder,
        role=str(summary.get("role") or spec.get("role") or TRIAL),
        state=str(summary.get("state") or (UNREADABLE if unread else undone)),
        reason=str(summary.get("reason") or unread),
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
    except PermissionError as error:
        warnings.append(f"{file}: can't be read ({error.strerror})")
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
