"""mirror: a tracker is given what the trial directories hold, as often as one likes.

What a person reads about a trial in a tracker (its run's name, parameters, tags) is made here, for
a running sweep and for a mirrored one alike. LIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.labels import trial_label
from orchestrator.results import read_trials
from orchestrator.tracking import RunEnd, RunStart, Tracker
from orchestrator.trial_result import RUNNING
from trainables.run_folder import RunFolder, TrialFolder
from trainables.spec import INTERRUPTED, Event, TrialSpec


def mirror(run: RunFolder, tracker: Tracker) -> None:
    """Gives an opened tracker every trial of the run, as far as its files can be read.

    A trial that has not ended is running there while a driver holds the sweep, else interrupted.
    Raises TrackingError.
    """
    for result in read_trials(run):
        if result.warnings:
            continue  # torn files; the report names them
        start_trial(tracker, result.folder)
        if result.state != RUNNING:
            finish_trial(tracker, result.folder)


def start_trial(tracker: Tracker, folder: TrialFolder) -> None:
    """Creates or reopens the run of a trial whose spec is written."""
    spec = folder.spec()
    tracker.start(
        RunStart(
            folder.trial_id,
            name=trial_name(spec),
            started=folder.spec_file.stat().st_mtime,
            params=trial_params(spec),
            tags=trial_tags(spec),
        )
    )


def finish_trial(tracker: Tracker, folder: TrialFolder) -> None:
    """Ends a started trial's run as its summary says, with its report score if there is one.

    May be called again when the report score comes later.
    """
    summary = folder.summary() or {"state": INTERRUPTED, "reason": "it has not ended"}
    facts = summary.get("facts") or {}
    asked = {name: (facts.get("selection") or {}).get(name) for name in ("context", "evidence")}
    tracker.finish(
        RunEnd(
            folder.trial_id,
            state=summary["state"],
            reason=summary.get("reason") or "",
            history=[Event.from_json(event) for event in summary.get("history", ())],
            metrics={**(summary.get("metrics") or {}), **_report_metrics(folder)},
            tags=_flat({**(summary.get("provenance") or {}), **facts, **asked}),
            artifacts=_artifacts(folder),
        )
    )


def trial_name(spec: TrialSpec) -> str:
    """What a person calls the trial: 'small nf4 r8 a16 lr1.3e-03 b8x2 · 3f9c2a'."""
    return f"{trial_label(spec.knobs)} · {spec.trial_id[:6]}"


def trial_params(spec: TrialSpec) -> dict[str, Any]:
    """Every knob, named as the space names it, and trial_id."""
    return {**spec.knobs, "trial_id": spec.trial_id}


def trial_tags(spec: TrialSpec) -> dict[str, str]:
    """What identifies the trial beside its knobs."""
    tags = {"role": spec.role, "task": spec.task, "model_digest": spec.model_digest}
    return {**tags, **({"revision": spec.revision} if spec.revision else {})}


def _report_metrics(folder: TrialFolder) -> dict[str, float]:
    report = folder.report_score()
    if report is None:
        return {}
    metrics = {f"report_{name}": value for name, value in report["metrics"].items()}
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
    files = (folder.spec_file, folder.summary_file, folder.predictions_file(), folder.log_file)
    return tuple(file for file in files if file.exists())
