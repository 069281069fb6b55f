"""Evaluation without training: baselines, prompted bases, finished trials on the report split."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from typing import Any

from trainables.data.batches import rung_questions
from trainables.data.encoding import Encoded
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.resources.flops import WorkRates, rates_of
from trainables.resources.memory_peak import PeakMemory, reset_process_peak
from trainables.resources.out_of_memory import memory_errors
from trainables.spec.decoding import Decoding
from trainables.spec.events import Event
from trainables.storage.atomic_files import digest
from trainables.storage.sealed_json import DamagedError
from trainables.training import checkpoint
from trainables.training.engines import make_engine
from trainables.training.progress import Progress, last_progress
from trainables.training.summary import finish
from trainables.training.trial import TrialContext


def evaluate_untrained(trial: TrialContext) -> Generator[Event, None, None]:
    """Evaluates a baseline, without training, on the selection split and the report split."""
    reset_process_peak()
    progress = Progress(fraction=1.0)
    rates = rates_of(trial.folder.estimate())
    progress.begin_attempt(trial, can_count=rates is not None)
    peak = PeakMemory(trial.base.model, trial.base.device)
    with memory_errors(), progress.timed("eval_seconds"):
        evaluation = _evaluate_split(trial, trial.base.model, "selection", peak)
        report, _ = _score_report(trial, trial.base.model)
    progress.count(rates, evaluation=(*evaluation.work, *report.work))
    progress.executed_eval_batch = evaluation.batch_size
    progress.eval_peak_memory_bytes = peak.bytes
    progress.record_device_peaks(peak)
    metrics = evaluation.metrics | progress.memory_metrics() | progress.cost_metrics()
    yield progress.event("rung", metrics, fraction=1.0, system=trial.sample())
    yield finish(trial, progress)


def evaluate_prompted(trial: TrialContext) -> Generator[Event, None, None]:
    """Evaluates the base of a trial that trains nothing, at each rung on more questions of the
    selection split, at the last on all of them.

    Resumes after the last rung that was evaluated.
    """
    reset_process_peak()
    progress = last_progress(trial.folder)
    rates = rates_of(trial.folder.estimate())
    progress.begin_attempt(trial, can_count=rates is not None)
    known = progress.eval_peak_memory_bytes
    peak = PeakMemory(trial.base.model, trial.base.device, at_least=known)
    for step, fraction in enumerate(_pending_rungs(trial, progress), start=progress.step + 1):
        metrics = _evaluate_rung(trial, progress, rates, peak, fraction=fraction)
        if fraction > progress.fraction:
            progress.step, progress.fraction = step, fraction
            progress.units = round(fraction * trial.spec.budget.train_examples)
            metrics |= progress.memory_metrics() | progress.cost_metrics()
            event = progress.event("rung", metrics, fraction=fraction, system=trial.sample())
            _save(trial, progress)
            yield event
    yield finish(trial, progress)


def _pending_rungs(trial: TrialContext, progress: Progress) -> list[float]:
    """The rungs that are not evaluated; the last one too if its predictions were damaged since."""
    rungs = sorted(trial.spec.budget.rungs)
    pending = [fraction for fraction in rungs if fraction > progress.fraction]
    whole = digest(trial.folder.predictions_file()) == progress.predictions_sha256
    return pending or ([] if whole else rungs[-1:])


def _evaluate_rung(
    trial: TrialContext,
    progress: Progress,
    rates: WorkRates | None,
    peak: PeakMemory,
    *,
    fraction: float,
) -> dict[str, float]:
    """Writes the predictions of a rung and counts its work; returns what was measured."""
    encoded = trial.data.split("selection")
    chosen = encoded.subset(rung_questions(trial.spec, len(encoded), fraction))
    with memory_errors(), progress.timed("eval_seconds"):
        evaluation = _evaluate(trial, trial.base.model, chosen, peak)
    progress.predictions_sha256 = trial.folder.write_predictions(evaluation.predictions)
    progress.count(rates, evaluation=evaluation.work)
    progress.executed_eval_batch = evaluation.batch_size
    progress.eval_peak_memory_bytes = peak.bytes
    progress.record_device_peaks(peak)
    return evaluation.metrics | ({"shots_shown": _mean_shots(chosen)} if encoded.shots else {})


def _save(trial: TrialContext, progress: Progress) -> None:
    """Writes a checkpoint without tensors."""
    progress.add_device_time()
    state = {"progress": dataclasses.asdict(progress)}
    made = checkpoint.Checkpoint(step=progress.step, state=state, tensors={})
    folder = trial.folder
    checkpoint.save(folder.checkpoints_folder, made, guard=folder.guard, mirror=folder.mirror)


def score_report(trial: TrialContext) -> dict[str, Any]:
    """Scores a finished trial on the report split; writes its predictions, then its score.

    The workers of a group score it together; under ZeRO-3 they split its weights as in training.
    Returns {split, metrics, count, facts}. Raises InputError if the split's data is bad, and
    DamagedError if the adapter is damaged: then the trial's result is discarded.
    """
    method = trial.method
    damaged = trial.folder.damaged_adapter()
    if trial.folder.model_was_removed:
        damaged = [trial.folder.model_folder]
    if damaged:
        trial.folder.discard_result()
        raise DamagedError(f"{damaged[0]} is damaged or gone; the next start trains it again")
    model = method.load(trial.base.model, trial.result_folder)
    if trial.process_group.size > 1:  # such a model can't be given back
        with memory_errors():
            _split(trial, model)
            return _score_report(trial, model)[1]
    try:
        with memory_errors():
            return _score_report(trial, model)[1]
    finally:
        method.detach(model)


def _split(trial: TrialContext, model: Any) -> None:
    """Splits the weights over the workers if the trial was trained so.

    DeepSpeed wants something to optimize: the smallest parameter, which stays as it is.
    """
    if trial.spec.knobs.get("zero_stage", 0) == 3:
        min(model.parameters(), key=lambda parameter: parameter.numel()).requires_grad_(True)
        group, knobs = trial.process_group, trial.spec.knobs
        make_engine(model, trial.base, knobs, total_steps=1, process_group=group)
        model.eval()


def _score_report(trial: TrialContext, model: Any) -> tuple[Evaluation, dict[str, Any]]:
    peak = PeakMemory(model, trial.base.device)
    evaluation = _evaluate_split(trial, model, "report", peak)
    metrics = evaluation.metrics
    count = len(evaluation.predictions)
    facts = {
        **trial.data.task.facts("report"),
        "executed_eval_batch": evaluation.batch_size,
    }
    score = {"split": "report", "metrics": metrics, "count": count, "facts": facts}
    trial.folder.write_report_score(score)
    return evaluation, score


def _mean_shots(encoded: Encoded) -> float:
    """How many shots a question has that fits; fewer than asked for if they are too long."""
    counts = [len(encoded.shots[at]) for at in encoded.fitting]
    return sum(counts) / len(counts) if counts else 0.0


def _evaluate_split(trial: TrialContext, model: Any, split: str, peak: PeakMemory) -> Evaluation:
    """Evaluates a whole split and writes its predictions."""
    evaluation = _evaluate(trial, model, trial.data.split(split), peak)
    trial.folder.write_predictions(evaluation.predictions, split)
    return evaluation


def _evaluate(trial: TrialContext, model: Any, encoded: Encoded, peak: PeakMemory) -> Evaluation:
    return evaluate(
        model,
        trial.base,
        task=trial.data.task,
        encoded=encoded,
        execution=trial.spec.execution,
        peak=peak,
        decoding=Decoding.of(trial.spec.knobs),
        after_batch=trial.heartbeat,
        may_shrink=trial.process_group.size == 1,
    )
