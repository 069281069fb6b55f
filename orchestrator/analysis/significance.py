"""Whether a difference between trials is one: Wilson intervals and exact McNemar tests.

All comparisons are paired: two trials are compared on the questions that both answered. A
difference that is not significant at 5% is a tie.

Several trials are compared in two ways. `any_difference` tests every pair (Bonferroni): the best
trial is known only from the same answers, so a test of it against the others, corrected for their
number alone, finds a difference among equal trials in 13% of sweeps of 10 trials and in 60% of
sweeps of 200 (simulated: 900 questions; every pair: 4% and 4%). `compare_with_best` tests the best
against each other one (Holm): the trial that is best in truth is not a tie of the best one seen in
less than 5% of sweeps (`tests/orchestrator/analysis/test_significance.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.runs.predictions import Predictions, places_of, shared_ids

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Which questions a trial has right, by a metric: those that the metric was measured on."""

    ids: tuple[str, ...]
    right: NDArray[Any]  # of bool, one per id

    @classmethod
    def of(cls, predictions: Predictions, metric: str) -> Outcomes:
        """A question is right where its value of `metric` is not 0 or false; None: not measured."""
        import numpy

        known = predictions.measured(metric)
        right = numpy.fromiter(map(bool, known.column(metric)), dtype=bool, count=len(known.ids))
        return cls(known.ids, right)

    def at(self, ids: tuple[str, ...]) -> NDArray[Any]:
        """Which of these questions are right; all of them must be in `self.ids`."""
        return self.right if ids == self.ids else self.right[places_of(ids, self.ids)]


@dataclass(frozen=True)
class Comparison:
    """a against b on `count` questions; `difference` is a's share right less b's.

    `low` and `high` bound the difference with 95% confidence (Agresti and Min 2005: half a
    question added to each cell of the table of pairs). `p_value` is McNemar's, exact and two-sided,
    adjusted (Holm) where this is one of several `comparisons`; the verdict follows from it, the
    interval is that of this comparison alone.
    """

    difference: float
    low: float
    high: float
    p_value: float
    count: int
    only_a: int  # questions that a alone has right
    only_b: int
    comparisons: int = 1

    @property
    def verdict(self) -> Verdict:
        if self.p_value >= 1 - CONFIDENCE or self.difference == 0:
            return "tie"
        return "better" if self.difference > 0 else "worse"


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion of which `share` was seen in `count` (Wilson 1927).

    (0, 1) when `count` is 0. scipy's `proportion_ci` gives the same, but of whole numbers only: a
    mean of F1 scores is none.
    """
    if count <= 0:
        return 0.0, 1.0
    z = _normal_quantile()
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return low, 1.0 if share >= 1 else min(1.0, middle + half)


def mcnemar(only_a: Any, only_b: Any) -> Any:
    """The exact two-sided p-value that two paired proportions are equal (McNemar 1947).

    `only_a` and `only_b` count the questions that one of the two has right: numbers, or arrays of
    one shape. With none it is 1.
    """
    import numpy
    from scipy.special import bdtr

    fewer, differing = numpy.minimum(only_a, only_b), numpy.add(only_a, only_b)
    return numpy.minimum(1.0, 2 * bdtr(fewer, differing, 0.5))  # twice a tail of the binomial


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, adjusted so that all together err in 5% (Holm 1979)."""
    adjusted, least = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def compare(a: Outcomes, b: Outcomes) -> Comparison:
    """a against b, paired by question id; raises ValueError if they have no question in common."""
    common = shared_ids([a.ids, b.ids])
    if not common:
        raise ValueError("the two have no question in common")
    right_a, right_b = a.at(common), b.at(common)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    low, high = _interval(only_a, only_b, len(common))
    return Comparison(
        difference=(only_a - only_b) / len(common),
        low=low,
        high=high,
        p_value=float(mcnemar(only_a, only_b)),
        count=len(common),
        only_a=only_a,
        only_b=only_b,
    )


def compare_with_best(best: Outcomes, others: Sequence[Outcomes]) -> list[Comparison | None]:
    """`best` against each of the others, Holm over all of them; None where two have no question in
    common."""
    found = {
        place: compare(best, other)
        for place, other in enumerate(others)
        if shared_ids([best.ids, other.ids])
    }
    adjusted = holm([item.p_value for item in found.values()])
    compared = {
        place: replace(item, p_value=p_value, comparisons=len(found))
        for (place, item), p_value in zip(found.items(), adjusted, strict=True)
    }
    return [compared.get(place) for place in range(len(others))]


def any_difference(trials: Sequence[Outcomes]) -> float | None:
    """The p-value that no two trials differ in their share right; None if that can't be asked.

    The smallest exact McNemar p of all pairs, times their number (Bonferroni): it holds however
    alike trials are. (Cochran's Q does not: it takes two near copies among others for a
    difference in accuracy.)
    """
    import numpy

    common = shared_ids([item.ids for item in trials])
    if len(trials) < 2 or not common:
        return None
    right = numpy.array([item.at(common) for item in trials], dtype=float)
    both = right @ right.T
    only = both.diagonal()[:, None] - both  # [a, b]: the questions that a alone has right
    first, second = numpy.triu_indices(len(trials), k=1)
    p_values = mcnemar(only[first, second], only[second, first])
    return float(min(1.0, len(p_values) * p_values.min()))


def _interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    total = count + 2
    middle = (only_a - only_b) / total
    variance = ((only_a + only_b + 1) / total - middle * middle) / total
    half = _normal_quantile() * math.sqrt(variance)
    return max(-1.0, middle - half), min(1.0, middle + half)


def _normal_quantile() -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
