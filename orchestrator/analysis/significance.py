"""Whether a difference of a metric is significant: Wilson intervals, exact McNemar, paired t.

All comparisons are paired by question: two trials are compared on the questions that both answered.
A difference that is not significant at 5% is a tie. Shares of questions are compared by McNemar's
exact test, means of other values per question by Student's t on the differences.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainables.spec.metric import MetricSpec

CONFIDENCE = 0.95
MCNEMAR, PAIRED_T = "exact McNemar", "paired t"
Rows = Iterable[Mapping[str, Any]]
Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Comparison:
    """a against b on `count` questions; `difference` is a's value less b's.

    `low` and `high` bound the difference with 95% confidence: for shares by Agresti and Min (2005,
    half a question added to each cell of the table of pairs), else by Student's t. `p_value` is
    two-sided, of `test`. Where values are shares `only_a` and `only_b` count the questions that one
    of the two alone has true.
    """

    difference: float
    low: float
    high: float
    p_value: float
    verdict: Verdict
    count: int
    only_a: int = 0
    only_b: int = 0
    test: str = MCNEMAR


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion of which `share` was seen in `count` (Wilson 1927).

    (0, 1) if `count` is 0.
    """
    if count <= 0:
        return 0.0, 1.0
    z = _normal_quantile()
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = _wilson_half_width(share, count, z)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return low, 1.0 if share >= 1 else min(1.0, middle + half)


def half_width_95(share: float, count: int) -> float:
    """Half the width of Wilson's 95% interval around a share of `count` questions, for z = 1.96."""
    return _wilson_half_width(share, count, 1.96)


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value that two paired proportions are equal (McNemar 1947).

    `only_a` and `only_b` count the questions that one of the two has true; 1 if there are none.
    """
    from scipy.stats import binomtest

    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def compare(a: Rows, b: Rows, *, metric: MetricSpec) -> Comparison:
    """a against b, paired by question id; rows hold `id` and the metric's `per_question_key`.

    Raises ValueError if they have no question in common.
    """
    values_a, values_b = _values(a, metric), _values(b, metric)
    common = values_a.keys() & values_b.keys()
    if not common:
        raise ValueError("the two have no question in common")
    pairs = [(values_a[key], values_b[key]) for key in sorted(common)]
    return _compared_shares(pairs, metric) if metric.is_share_of_questions else _t(pairs, metric)


def any_difference(trials: Sequence[Rows], *, metric: MetricSpec) -> float | None:
    """The p-value that no two trials differ in the metric; None if they can't be compared.

    The smallest p of all pairs, times their number (Bonferroni): it holds however alike trials are.
    (Cochran's Q does not: it takes two near copies among others for a difference.)
    """
    values = [_values(rows, metric) for rows in trials]
    common = sorted(set.intersection(*(set(item) for item in values))) if values else []
    if len(values) < 2 or not common:
        return None
    columns = [[item[key] for key in common] for item in values]
    test = _mcnemar_of if metric.is_share_of_questions else _paired_t_of
    pairs = list(itertools.combinations(columns, 2))
    return min(1.0, len(pairs) * min(test(one, other) for one, other in pairs))


def _wilson_half_width(share: float, count: int, z: float) -> float:
    spread = math.sqrt(share * (1.0 - share) / count + (z / (2.0 * count)) ** 2)
    return z * spread / (1.0 + z * z / count)


def _values(rows: Rows, metric: MetricSpec) -> dict[str, float]:
    key = metric.per_question_key
    kind = bool if metric.is_share_of_questions else float
    return {str(row["id"]): kind(row[key]) for row in rows if row.get(key) is not None}


def _compared_shares(pairs: Sequence[tuple[float, float]], metric: MetricSpec) -> Comparison:
    only_a = sum(bool(x and not y) for x, y in pairs)
    only_b = sum(bool(y and not x) for x, y in pairs)
    difference = (only_a - only_b) / len(pairs)
    low, high = _interval(only_a, only_b, len(pairs))
    p_value = mcnemar(only_a, only_b)
    verdict = _verdict(metric.gain(difference), p_value)
    return Comparison(difference, low, high, p_value, verdict, len(pairs), only_a, only_b)


def _t(pairs: Sequence[tuple[float, float]], metric: MetricSpec) -> Comparison:
    differences = [x - y for x, y in pairs]
    mean, error = _mean_and_error(differences)
    half = error * _t_quantile(len(pairs)) if error else 0.0
    p_value = _t_p_value(differences)
    verdict = _verdict(metric.gain(mean), p_value)
    return Comparison(mean, mean - half, mean + half, p_value, verdict, len(pairs), test=PAIRED_T)


def _verdict(gain: float, p_value: float) -> Verdict:
    if p_value >= 1 - CONFIDENCE or gain == 0:
        return "tie"
    return "better" if gain > 0 else "worse"


def _mcnemar_of(one: Sequence[float], other: Sequence[float]) -> float:
    both = list(zip(one, other, strict=True))
    return mcnemar(sum(bool(x and not y) for x, y in both), sum(bool(y and not x) for x, y in both))


def _paired_t_of(one: Sequence[float], other: Sequence[float]) -> float:
    return _t_p_value([x - y for x, y in zip(one, other, strict=True)])


def _t_p_value(differences: Sequence[float]) -> float:
    """Student's two-sided p. Differences that are all equal have no spread: theirs is the p of the
    exact test that turns signs, by which one or two questions show nothing."""
    from scipy.stats import t

    mean, error = _mean_and_error(differences)
    if not error:
        return 1.0 if mean == 0 else 2.0 ** (1 - len(differences))
    return float(2 * t.sf(abs(mean) / error, len(differences) - 1))


def _mean_and_error(differences: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; 0 for one difference."""
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else 0.0
    return statistics.fmean(differences), error


def _interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    total = count + 2
    middle = (only_a - only_b) / total
    variance = ((only_a + only_b + 1) / total - middle * middle) / total
    half = _normal_quantile() * math.sqrt(variance)
    return max(-1.0, middle - half), min(1.0, middle + half)


def _normal_quantile() -> float:
    return statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def _t_quantile(count: int) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1))
