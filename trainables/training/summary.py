"""The summary of a finished trial: the last file that it writes, which makes it done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from trainables.spec.events import Event
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import step_examples
from trainables.spec.states import FINISHED
from trainables.training.progress import Progress
from trainables.training.trial import TrialContext


def finish(trial: TrialContext, progress: Progress) -> Event:
    """Writes the summary, which makes the trial done, then deletes the checkpoints."""
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


def _summary(trial: TrialContext, progress: Progress) -> dict[str, Any]:
    metrics: dict[str, float] = {}
    for event in progress.history:
        metrics |= event["metrics"]
    for name in ("train_flops", "eval_flops"):  # void if an attempt could not count them
        metrics.pop(name, None)
    metrics |= progress.cost_metrics()
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
        "times": {"first_step": progress.first_step_time, "end": time.time()},
        "history": progress.history,
        "facts": _facts(trial, progress),
        "provenance": dict(trial.provenance),
        "attempts": progress.attempts,
    }


def _seconds(trial: TrialContext, progress: Progress) -> dict[str, float]:
    return {
        "load": trial.base.seconds,
        "train": progress.train_seconds,
        "eval": progress.eval_seconds,
        "total": progress.seconds,
    }


def _facts(trial: TrialContext, progress: Progress) -> dict[str, Any]:
    """The facts about the data and the computation that every result states."""
    trains = trial.method.trains
    data = trial.data
    splits = ("selection", "report") if trial.method.is_baseline else ("train", "selection")
    facts: dict[str, Any] = {split: dict(data.task.facts(split)) for split in splits}
    facts["sequence_limit"] = data.sequence_limit
    facts["base_weight_bytes"] = trial.base.weight_bytes
    facts["eval_prompts_cut"] = data.split("selection").prompts_cut
    facts |= _dropped(trial) | _shots(trial)
    facts["executed_eval_batch"] = progress.executed_eval_batch
    if trains:
        facts["train_prompts_cut"] = data.split("train").prompts_cut
        facts |= _batch_facts(trial.spec.knobs, progress)
        facts |= _trained_facts(trial.spec.knobs, progress)
    return facts


def _dropped(trial: TrialContext) -> dict[str, int]:
    """The examples that were left out because they don't fit, if that is wanted."""
    if not trial.data.drops_too_long:
        return {}
    splits = {"eval_questions_dropped": "selection"}
    splits |= {"train_examples_dropped": "train"} if trial.method.trains else {}
    return {fact: len(trial.data.split(split).too_long) for fact, split in splits.items()}


def _shots(trial: TrialContext) -> dict[str, int]:
    """The questions of the selection split that lost shots, where they have any."""
    encoded = trial.data.split("selection")
    return {"eval_questions_with_fewer_shots": len(encoded.lost_shots)} if encoded.shots else {}


def _trained_facts(knobs: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The number of workers and of trained parameters, and the size of the result."""
    return {
        "workers": knobs.get("workers", 1),
        "trainable_parameters": progress.trainable_parameters,
        "checkpoint_bytes": progress.checkpoint_bytes,
        "save_seconds": progress.save_seconds,
    }


def _batch_facts(knobs: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """The requested batch size, which may be "auto", and the executed one."""
    return {
        "requested_micro_batch": knobs["batch_size"],
        "requested_gradient_accumulation": knobs.get("gradient_accumulation", AUTO),
        "examples_per_step": step_examples(knobs),
        "executed_micro_batch": progress.executed_batch_size,
        "executed_gradient_accumulation": progress.executed_gradient_accumulation,
    }
