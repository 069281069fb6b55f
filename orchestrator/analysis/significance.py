"""Whether a difference in exact match is one: Wilson intervals and exact McNemar.

All comparisons are paired by question: two trials are judged on the questions that both
answered. A difference that is not significant at 5% is a tie.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

CONFIDENCE = 0.95
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """a against b on `count` questions; `difference` is a's share right less b's.

    `low` and `high` bound the difference with 95% confidence (Agresti and Min 2005: half a
    question added to each cell of the table of pairs). `p_value` is McNemar's, exact and two-sided.
    """

    difference: float
    low: float
    high: float
    p_value: float
    verdict: Literal["better", "worse", "tie"]
    count: int
    only_a: int  # questions that a alone has right
    only_b: int


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion of which `share` was seen in `count` (Wilson 1927).

    (0, 1) when `count` is 0.
    """
    if count <= 0:
        return 0.0, 1.0
    z = _normal_quantile()
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z * math.sqrt(spread) / (1 + z * z / count)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return low, 1.0 if share >= 1 else min(1.0, middle + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value that two paired proportions are equal (McNemar 1947).

    `only_a` and `only_b` count the questions that one of the two has right; with none it is 1.
    """
    from scipy.stats import binomtest

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def compare(a: Rows, b: Rows, *, metric: str = "em_acc") -> Comparison:
    """a against b, paired by question id; rows hold `id` and `metric` (0 or 1).

    Raises ValueError when they have no question in common.
    """
    right_a, right_b = _right(a, metric), _right(b, metric)
    common = right_a.keys() & right_b.keys()
    if not common:
        raise ValueError("the two have no question in common")
    only_a = sum(right_a[key] and not right_b[key] for key in common)
    only_b = sum(right_b[key] and not right_a[key] for key in common)
    difference = (only_a - only_b) / len(common)
    low, high = _interval(only_a, only_b, len(common))
    p_value = mcnemar(only_a, only_b)
    verdict: Literal["better", "worse", "tie"] = "better" if difference > 0 else "worse"
    if p_value >= 1 - CONFIDENCE or difference == 0:
        verdict = "tie"
    return Comparison(difference, low, high, p_value, verdict, len(common), only_a, only_b)


def any_difference(trials: Sequence[Rows], *, metric: str = "em_acc") -> float | None:
    """The p-value that no two trials differ in their share right; None if that can't be asked.

    The smallest exact McNemar p of all pairs, times their number (Bonferroni): it holds however
    alike trials are. (Cochran's Q does not: it takes two near copies among others for a
    difference in accuracy.)
    """
    right = [_right(rows, metric) for rows in trials]
    common = sorted(set.intersection(*(set(item) for item in right))) if right else []
    if len(right) < 2 or not common:
        return None
    columns = [[item[key] for key in common] for item in right]
    pairs = list(itertools.combinations(columns, 2))
    return min(1.0, len(pairs) * min(_mcnemar_of(one, other) for one, other in pairs))


def _mcnemar_of(one: Sequence[bool], other: Sequence[bool]) -> float:
    both = list(zip(one, other, strict=True))
    return mcnemar(sum(x and not y for x, y in both), sum(y and not x for x, y in both))


def _right(rows: Rows, metric: str) -> dict[str, bool]:
    return {str(row["id"]): bool(row[metric]) for row in rows if row.get(metric) is not None}


def _interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    total = count + 2
    middle = (only_a - only_b) / total
    variance = ((only_a + only_b + 1) / total - middle * middle) / total
    half = _normal_quantile() * math.sqrt(variance)
    return max(-1.0, middle - half), min(1.0, middle + half)


def _normal_quantile() -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
