"""The best finished configuration within limits, what ties with it, what came closest. LIGHT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.analysis.significance import Outcomes, compare_with_best
from orchestrator.runs.derived_metrics import gpu_memory_bytes
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.trial_result import TrialResult

Aim = Literal["train_flops", "memory", "em_error"]
AIMS: tuple[Aim, ...] = ("em_error", "memory", "train_flops")


@dataclass(frozen=True)
class Requirements:
    """What is asked: the least of `minimize` among trials within the limits that are given."""

    minimize: Aim = "em_error"
    gpu_memory: int | None = None  # bytes
    min_em_acc: float | None = None  # a share


@dataclass(frozen=True)
class Tie:
    """A trial within the limits whose EmAcc is not significantly different from the answer's.

    The p-value is exact McNemar's, adjusted for all trials within the limits (Holm).
    """

    trial: TrialResult
    p_value: float


@dataclass(frozen=True)
class NearMiss:
    """A trial that comes close, and what it misses by: bytes too many, EmAcc too little."""

    trial: TrialResult
    excess_bytes: float
    lacking_em_acc: float


@dataclass(frozen=True)
class Recommendation:
    """`best` is None where no finished trial is within the limits; then `misses` say how far off
    the nearest are. `considered`: finished trials that were measured; `unmeasured`: those that lack
    what the question is about."""

    question: Requirements
    best: TrialResult | None
    considered: int
    unmeasured: int
    ties: Sequence[Tie] = ()
    not_compared: int = 0  # within the limits, but with no question in common with the best
    misses: Sequence[NearMiss] = field(default_factory=tuple)


def best_within(results: Sequence[TrialResult], question: Requirements) -> Recommendation:
    """The finished trial that does best; of equals the more accurate, then the lower eval loss."""
    finished = [item for item in results if item.is_trial and item.finished]
    measured = [item for item in finished if _is_measured(item, question)]
    unmeasured = len(finished) - len(measured)
    within = [item for item in measured if _fits(item, question) and _reaches(item, question)]
    if not within:
        misses = _misses(measured, question)
        return Recommendation(question, None, len(measured), unmeasured, misses=misses)
    order = sorted(within, key=lambda item: _order(item, question))
    ties, not_compared = _ties(order)
    return Recommendation(
        question, order[0], len(measured), unmeasured, ties=ties, not_compared=not_compared
    )


def aimed_at(item: TrialResult, aim: Aim) -> float | None:
    """The number that is to be small; None if it was not measured."""
    if aim == "memory":
        return gpu_memory_bytes(item.metrics)
    if aim == "em_error":
        return 1 - item.metrics["em_acc"] if "em_acc" in item.metrics else None
    return item.metrics.get("train_flops")


def _is_measured(item: TrialResult, question: Requirements) -> bool:
    needed: list[Aim] = [question.minimize, "em_error"]
    if question.gpu_memory is not None:
        needed.append("memory")
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
    """EmAcc below the limit."""
    asked = question.min_em_acc
    return 0.0 if asked is None else asked - item.metrics["em_acc"]


def _order(item: TrialResult, question: Requirements) -> tuple[float, float, float, str]:
    aim = aimed_at(item, question.minimize)
    loss = item.metrics.get("eval_loss", float("inf"))
    return aim if aim is not None else 0.0, -item.metrics["em_acc"], loss, item.trial_id


def _ties(order: Sequence[TrialResult]) -> tuple[list[Tie], int]:
    """In the order of the question; and how many could not be compared."""
    read = PredictionReader()
    best, *others = (Outcomes.of(read(item), "em_acc") for item in order)
    found = compare_with_best(best, others)
    ties = [
        Tie(item, comparison.p_value)
        for item, comparison in zip(order[1:], found, strict=True)
        if comparison is not None and comparison.verdict == "tie"
    ]
    return ties, found.count(None)


def _misses(measured: Sequence[TrialResult], question: Requirements) -> list[NearMiss]:
    """The most accurate that fits, and the smallest that is accurate enough: where to give way.

    Where none fits, or none is accurate enough, the nearest of all stands for it.
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
    """The answer as plain values, sizes in bytes, EmAcc as shares."""
    asked = value.question
    return {
        "asked": {
            "minimize": asked.minimize,
            "gpu_memory_bytes": asked.gpu_memory,
            "min_em_acc": asked.min_em_acc,
        },
        "considered": value.considered,
        "unmeasured": value.unmeasured,
        "best": None if value.best is None else _facts(value.best),
        "ties": [{**_facts(tie.trial), "p_value": tie.p_value} for tie in value.ties],
        "closest": [
            {
                **_facts(miss.trial),
                "excess_bytes": miss.excess_bytes,
                "lacking_em_acc": miss.lacking_em_acc,
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
