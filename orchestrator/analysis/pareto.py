"""The Pareto front: the finished trials that no other beats in both value and cost. LIGHT."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.runs.trial_result import TrialResult

COST, VALUE = "train_peak_memory_bytes", "em_acc"
COSTS = ("train_peak_memory_bytes", "eval_peak_memory_bytes", "train_flops")


def front(
    results: Sequence[TrialResult], *, cost: str = COST, value: str = VALUE
) -> list[TrialResult]:
    """The finished trials that none dominates, the cheapest first.

    A trial is dominated if another costs no more and is worth no less, and is better in one of
    the two. Trials equal in both stand or fall together. Baselines and trials that lack one of
    the metrics do not take part.
    """
    members: list[TrialResult] = []
    best = float("-inf")
    points = sorted(
        candidates(results, cost=cost, value=value), key=lambda item: item.metrics[cost]
    )
    for _, group in groupby(points, key=lambda item: item.metrics[cost]):
        equal_cost = list(group)
        highest = max(item.metrics[value] for item in equal_cost)
        if highest > best:
            members += [item for item in equal_cost if item.metrics[value] == highest]
            best = highest
    return members


def candidates(
    results: Sequence[TrialResult], *, cost: str = COST, value: str = VALUE
) -> list[TrialResult]:
    """The finished trials that have both metrics."""
    names = {cost, value}
    return [
        item for item in results if item.is_trial and item.finished and names <= item.metrics.keys()
    ]


def non_dominated(
    results: Sequence[TrialResult], *, costs: Sequence[str] = COSTS, value: str = VALUE
) -> list[TrialResult]:
    """The finished trials that no other one beats: worth no less at no more of any cost, and better
    in one of them. One that lacks a number is beaten by none.
    """
    finished = [item for item in results if item.is_trial and item.finished]
    whole = [item for item in finished if {*costs, value} <= item.metrics.keys()]
    points = {item.trial_id: _point(item, costs, value) for item in whole}
    dominated = {
        name
        for name, point in points.items()
        if any(other != point and all(map(float.__ge__, other, point)) for other in points.values())
    }
    return [item for item in finished if item.trial_id not in dominated]


def _point(result: TrialResult, costs: Sequence[str], value: str) -> tuple[float, ...]:
    """More is better in all of them."""
    return (float(result.metrics[value]), *(-float(result.metrics[cost]) for cost in costs))
