"""The best finished trial within limits, the trials that tie with it, and near misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.analysis.significance import asked_alike, compare_with_best
from orchestrator.runs.derived_metrics import gpu_memory_bytes
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.metric import EVAL_LOSS, MetricSpec

MEMORY, TRAIN_FLOPS = "memory", "train_flops"


@dataclass(frozen=True)
class Requirements:
    """A question: which trial within the given limits has the least of `minimize`.

    `minimize` is one of `aims(metric)`; None is the first of them. `reach` is a value of the task's
    primary metric that a trial must have: at least, or at most if less is better.
    """

    minimize: str | None = None
    gpu_memory: int | None = None  # bytes
    reach: float | None = None


@dataclass(frozen=True)
class Tie:
    """A trial within the limits that is not significantly worse or better than the best.

    The p-value is adjusted for the number of trials within the limits (Holm).
    """

    trial: TrialResult
    p_value: float


@dataclass(frozen=True)
class NearMiss:
    """A trial outside the limits: the bytes that it needs too many, and by how much its primary
    metric is worse than the value to reach."""

    trial: TrialResult
    excess_bytes: float
    lacking: float


@dataclass(frozen=True)
class Recommendation:
    """The answer to Requirements, by the task's primary `metric`.

    `best` is None if no finished trial is within the limits; then `misses` are the nearest.
    `considered`: finished trials that were measured; `unmeasured`: finished trials without one of
    the numbers that the question is about. `not_compared`: trials within the limits that have no
    question in common with the best.
    """

    question: Requirements
    metric: MetricSpec
    best: TrialResult | None
    considered: int
    unmeasured: int
    ties: Sequence[Tie] = ()
    not_compared: int = 0
    misses: Sequence[NearMiss] = field(default_factory=tuple)


def aims(metric: MetricSpec) -> tuple[str, ...]:
    """What can be minimized: the error of the primary metric, memory, train FLOPs."""
    return error_name(metric), MEMORY, TRAIN_FLOPS


def error_name(metric: MetricSpec) -> str:
    """The name of the number that is small for a good trial.

    It is the metric itself if less is better, what a share lacks to 1 (`x_error` of `x_acc`, the
    share of wrong answers), or else the negative of the metric.
    """
    if metric.direction == "minimize":
        return metric.name
    if not metric.is_share_of_questions:
        return f"negative_{metric.name}"
    return "_".join(part for part in (_stem(metric.name), "error") if part)


def best_within(
    results: Sequence[TrialResult], question: Requirements, *, metric: MetricSpec
) -> Recommendation:
    """The finished trial with the least of what is minimized; ties go to the better `metric`, then
    to the lower eval loss."""
    finished = [item for item in results if item.is_trial and item.finished]
    measured = [item for item in finished if _is_measured(item, question)]
    unmeasured = len(finished) - len(measured)
    within = [item for item in measured if _fits(item, question) and _reaches(item, question)]
    if not within:
        misses = _misses(measured, question)
        return Recommendation(question, metric, None, len(measured), unmeasured, misses=misses)
    order = sorted(within, key=lambda item: _order(item, question))
    ties, not_compared = _ties(order, metric)
    return Recommendation(
        question, metric, order[0], len(measured), unmeasured, ties=ties, not_compared=not_compared
    )


def aimed_at(item: TrialResult, aim: str | None) -> float | None:
    """The number to minimize, or None if it was not measured."""
    if aim == MEMORY:
        return gpu_memory_bytes(item.metrics)
    if aim == TRAIN_FLOPS:
        return item.metrics.get(TRAIN_FLOPS)
    if item.gain is None:
        return None
    return 1 - item.gain if _has_error(item.primary) else -item.gain


def _stem(name: str) -> str:
    """The name of an accuracy without that word: 'f' of 'f_acc', '' of 'accuracy'."""
    return name.removesuffix("accuracy").removesuffix("acc").rstrip("_")


def _has_error(metric: MetricSpec) -> bool:
    return metric.is_share_of_questions and metric.direction == "maximize"


def _is_measured(item: TrialResult, question: Requirements) -> bool:
    needed = [question.minimize, None]
    if question.gpu_memory is not None:
        needed.append(MEMORY)
    return all(aimed_at(item, aim) is not None for aim in needed)


def _fits(item: TrialResult, question: Requirements) -> bool:
    return _excess(item, question) <= 0


def _reaches(item: TrialResult, question: Requirements) -> bool:
    return _lack(item, question) <= 0


def _excess(item: TrialResult, question: Requirements) -> float:
    """Bytes above the limit."""
    if question.gpu_memory is None:
        return 0.0
    return (gpu_memory_bytes(item.metrics) or 0.0) - question.gpu_memory


def _lack(item: TrialResult, question: Requirements) -> float:
    """By how much the primary metric is worse than the value to reach."""
    if question.reach is None or item.gain is None:
        return 0.0
    return item.primary.gain(question.reach) - item.gain


def _order(item: TrialResult, question: Requirements) -> tuple[float, float, float, str]:
    aim = aimed_at(item, question.minimize)
    loss = item.metrics.get(EVAL_LOSS.name, float("inf"))
    return aim if aim is not None else 0.0, -(item.gain or 0.0), loss, item.trial_id


def _ties(order: Sequence[TrialResult], metric: MetricSpec) -> tuple[list[Tie], int]:
    """The trials that tie with the first one, in this order, and how many can't be compared."""
    every = list(map(PredictionReader(), order))
    alike = asked_alike(every, metric=metric)
    best, *others = [every[at] for at in alike]
    found = compare_with_best(best, others, metric=metric)
    ties = [
        Tie(order[at], comparison.p_value)
        for at, comparison in zip(alike[1:], found, strict=True)
        if comparison is not None and comparison.verdict == "tie"
    ]
    return ties, found.count(None) + len(order) - len(alike)


def _misses(measured: Sequence[TrialResult], question: Requirements) -> list[NearMiss]:
    """The best trial by the metric that fits, and the smallest trial that reaches the value.

    If none fits, or none reaches the value, the nearest of all trials is taken instead.
    """
    if not measured:
        return []
    fitting = [item for item in measured if _fits(item, question)]
    reaching = [item for item in measured if _reaches(item, question)]
    accurate = min(fitting or measured, key=lambda item: (_lack(item, question), item.trial_id))
    small = min(reaching or measured, key=lambda item: (_excess(item, question), item.trial_id))
    return [
        NearMiss(item, max(0.0, _excess(item, question)), max(0.0, _lack(item, question)))
        for item in {item.trial_id: item for item in (accurate, small)}.values()
    ]


def as_json(value: Recommendation) -> Mapping[str, object]:
    """The answer as plain values: sizes in bytes, metrics as they were measured."""
    asked, metric = value.question, value.metric
    bound = "min" if metric.direction == "maximize" else "max"
    return {
        "asked": {
            "minimize": asked.minimize or error_name(metric),
            "gpu_memory_bytes": asked.gpu_memory,
            f"{bound}_{metric.name}": asked.reach,
        },
        "considered": value.considered,
        "unmeasured": value.unmeasured,
        "best": None if value.best is None else _facts(value.best),
        "ties": [{**_facts(tie.trial), "p_value": tie.p_value} for tie in value.ties],
        "closest": [
            {
                **_facts(miss.trial),
                "excess_bytes": miss.excess_bytes,
                f"lacking_{metric.name}": miss.lacking,
            }
            for miss in value.misses
        ],
    }


def _facts(item: TrialResult) -> dict[str, object]:
    report = {f"report_{name}": number for name, number in item.report_metrics.items()}
    return {
        "trial_id": item.trial_id,
        "configuration": dict(item.knobs),
        "gpu_memory_bytes": gpu_memory_bytes(item.metrics),
        **item.metrics,
        **item.costs,
        **report,
        "folder": str(item.folder.path),
    }
