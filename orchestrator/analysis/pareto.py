"""The Pareto front: finished trials that no other dominates in primary metric and cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from orchestrator.runs.trial_result import TrialResult

COST = "train_peak_memory_bytes"
TRAINS_NOTHING = "A trial that trains nothing stands at its evaluation peak memory."
EVALUATION_COST = "eval_peak_memory_bytes"
COSTS = (COST, EVALUATION_COST, "train_flops")


def front(results: Sequence[TrialResult], *, cost: str = COST) -> list[TrialResult]:
    """The finished trials that no other dominates, the cheapest first.

    A trial is dominated if another costs no more and is no worse in the primary metric, and is
    better in one of the two. Trials that are equal in both are all on the front or all not.
    Baselines and trials without one of the two numbers do not take part.
    """

    def key(item: TrialResult) -> float:
        return cost_of(item, cost)

    members: list[TrialResult] = []
    best = float("-inf")
    for _, group in groupby(sorted(candidates(results, cost=cost), key=key), key=key):
        equal_cost = list(group)
        highest = max(map(_gain, equal_cost))
        if highest > best:
            members += [item for item in equal_cost if _gain(item) == highest]
            best = highest
    return members


def candidates(results: Sequence[TrialResult], *, cost: str = COST) -> list[TrialResult]:
    """The finished trials that have the primary metric and the cost."""
    finished = (item for item in results if item.is_trial and item.finished)
    return [item for item in finished if item.gain is not None and _source(item, cost)]


def cost_of(item: TrialResult, cost: str = COST) -> float:
    """The cost of a candidate. That of training memory is the evaluation's where nothing is
    trained: it is the memory that such a trial needs."""
    return item.metrics[_source(item, cost)]


def trains_nothing(item: TrialResult) -> bool:
    """Whether a trial only asks its base."""
    return item.metrics.get("train_flops") == 0


def with_cost(results: Sequence[TrialResult], *, cost: str) -> list[TrialResult]:
    """The results without those whose cost is 0, as that of training nothing, which a logarithmic
    axis can't show."""
    return [item for item in results if item.metrics.get(cost) != 0]


def non_dominated(
    results: Sequence[TrialResult], *, costs: Sequence[str] = COSTS
) -> list[TrialResult]:
    """The finished trials that no other dominates, with several costs.

    A trial is dominated if another is no worse in the primary metric and in every cost, and better
    in one of them. A trial that lacks one of these numbers is not dominated.
    """
    finished = [item for item in results if item.is_trial and item.finished]
    whole = [item for item in finished if item.gain is not None and {*costs} <= item.metrics.keys()]
    points = {item.trial_id: _point(item, costs) for item in whole}
    dominated = {
        name
        for name, point in points.items()
        if any(other != point and all(map(float.__ge__, other, point)) for other in points.values())
    }
    return [item for item in finished if item.trial_id not in dominated]


def _point(result: TrialResult, costs: Sequence[str]) -> tuple[float, ...]:
    """The metric and the costs as numbers of which more is better."""
    return (_gain(result), *(-float(result.metrics[cost]) for cost in costs))


def _source(item: TrialResult, cost: str) -> str:
    """The metric that is the trial's cost, "" if it has none."""
    source = EVALUATION_COST if cost == COST and trains_nothing(item) else cost
    return source if source in item.metrics else ""


def _gain(result: TrialResult) -> float:
    return -float("inf") if result.gain is None else float(result.gain)
