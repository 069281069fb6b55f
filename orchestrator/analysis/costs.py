"""The cost of trials in memory, FLOPs and time, predicted and measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult

TRAIN_FLOPS = "train_flops"
MEASURED = {  # the metric with which each predicted column is compared
    "predicted_train_memory_bytes": "train_peak_memory_bytes",
    "predicted_eval_memory_bytes": "eval_peak_memory_bytes",
    "predicted_train_flops": "train_flops",
    "predicted_eval_flops": "eval_flops",
}


@dataclass(frozen=True)
class PredictionError:
    """Errors of the predictions for one kind of trial, as shares of the measured value.

    `median` and `high` (the 95th percentile) are of absolute errors; `under` is the largest
    underestimate as a negative number, or 0 if there is none.
    """

    count: int
    median: float
    high: float
    under: float


@dataclass(frozen=True)
class Reached:
    """A rung of a trial: the value of its primary metric, and its train FLOPs until then."""

    trial: TrialResult
    fraction: float
    flops: float
    value: float
    questions: int


def prediction_errors(
    results: Sequence[TrialResult], column: str
) -> dict[tuple[str, str], PredictionError]:
    """The errors of a column of MEASURED by method and quantization, over finished trials.

    A stopped trial may not have run its largest batches, nor all of its FLOPs.
    """
    errors: dict[tuple[str, str], list[float]] = {}
    for item in results:
        measured, planned = item.metrics.get(MEASURED[column]), item.costs.get(column)
        if item.finished and measured and planned is not None:
            kind = (str(item.knobs.get("method", "?")), quantization_name(item.knobs))
            errors.setdefault(kind, []).append(planned / measured - 1)
    return {kind: error_of(found) for kind, found in sorted(errors.items())}


def error_of(errors: Sequence[float]) -> PredictionError:
    """Summarizes errors, of which there must be one; each is a share of the measured value."""
    import numpy

    median, high = numpy.quantile(numpy.abs(errors), [0.5, 0.95])
    return PredictionError(
        count=len(errors),
        median=float(median),
        high=float(high),
        under=min(0.0, *errors),
    )


def learning_curve(trial: TrialResult) -> list[Reached]:
    """The trial's rungs that have the primary metric and train FLOPs, in order."""
    name, count_key = trial.primary.name, trial.task_metrics.count_key
    return [
        Reached(
            trial,
            fraction=event.fraction,
            flops=event.metrics[TRAIN_FLOPS],
            value=event.metrics[name],
            questions=int(event.metrics.get(count_key, 0)),
        )
        for event in trial.history
        if event.kind == "rung" and {TRAIN_FLOPS, name} <= event.metrics.keys()
    ]


def first_to_reach(results: Iterable[TrialResult], value: float) -> Reached | None:
    """The rung with this value of the primary metric, or a better one, after the fewest train
    FLOPs, of trials in any state; of equal ones the best. None if there is none."""
    rungs = (rung for item in results if item.is_trial for rung in learning_curve(item))
    reached = (rung for rung in rungs if _gain(rung) >= rung.trial.primary.gain(value))
    return min(reached, key=lambda rung: (rung.flops, -_gain(rung)), default=None)


def _gain(rung: Reached) -> float:
    return rung.trial.primary.gain(rung.value)


def has_device_alone(trial: TrialResult) -> bool:
    """Whether no other trial used its device; False if that was not recorded."""
    return trial.metrics.get("device_shared") == 0


def speed_ranks(results: Iterable[TrialResult]) -> dict[str, int]:
    """The rank of each trial by examples per second, from 1, by trial id.

    Only trials that had the device alone are ranked, among those with the same device name and
    number of workers.
    """
    ranks: dict[str, int] = {}
    by_device: dict[tuple[str, int], list[TrialResult]] = {}
    for item in results:
        if has_device_alone(item) and "examples_per_second" in item.metrics:
            device = str(item.provenance.get("device", ""))
            by_device.setdefault((device, item.knobs.get("workers", 1)), []).append(item)
    for items in by_device.values():
        order = sorted(items, key=lambda item: -item.metrics["examples_per_second"])
        ranks |= {item.trial_id: rank for rank, item in enumerate(order, start=1)}
    return ranks
