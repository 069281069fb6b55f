"""The summary of a trial that finished: the last file it writes, which makes it done."""

from __future__ import annotations

from typing import Any

from trainables.spec import FINISHED, Event
from trainables.trial import Progress, Trial


def finish(trial: Trial, progress: Progress) -> Event:
    """Writes the summary, which makes the trial done; only then checkpoints may go."""
    summary = _summary(trial, progress)
    trial.folder.write_summary(summary)
    trial.folder.discard_checkpoints()
    return Event(
        kind="finished",
        step=progress.step,
        units=progress.units,
        metrics=summary["metrics"],
        fraction=1.0,
        seconds=progress.seconds,
    )


def _summary(trial: Trial, progress: Progress) -> dict[str, Any]:
    metrics: dict[str, float] = {}
    for event in progress.history:
        metrics |= event["metrics"]
    return {
        "trial_id": trial.spec.trial_id,
        "role": trial.spec.role,
        "state": FINISHED,
        "reason": "",
        "configuration": dict(trial.spec.knobs),
        "metrics": metrics,
        "step": progress.step,
        "units": progress.units,
        "fraction": progress.fraction,
        "seconds": _seconds(trial, progress),
        "history": progress.history,
        "facts": _facts(trial),
        "provenance": dict(trial.provenance),
        "attempts": progress.attempts,
    }


def _seconds(trial: Trial, progress: Progress) -> dict[str, float]:
    return {
        "load": trial.base.seconds,
        "train": progress.train_seconds,
        "eval": progress.eval_seconds,
        "total": progress.seconds,
    }


def _facts(trial: Trial) -> dict[str, Any]:
    """What a result must say of its data and of how it was computed."""
    trains = trial.method.trains
    data, batch_size = trial.data, trial.spec.knobs.get("batch_size")
    splits = ("train", "selection") if trains else ("selection", "report")
    facts: dict[str, Any] = {split: dict(data.task.facts(split)) for split in splits}
    facts["sequence_limit"] = data.sequence_limit
    facts["base_weight_bytes"] = trial.base.weight_bytes
    facts["eval_prompts_cut"] = data.split("selection").prompts_cut
    if trains:
        facts["train_prompts_cut"] = data.split("train").prompts_cut
        facts |= {"requested_micro_batch": batch_size, "executed_micro_batch": batch_size}
    return facts
