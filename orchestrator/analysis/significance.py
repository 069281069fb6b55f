"""Whether a difference of a metric is significant: Wilson intervals, exact McNemar, paired t.

All comparisons are paired by question: two trials are compared on the questions that both answered.
A difference that is not significant at 5% is a tie. Shares of questions are compared by McNemar's
exact test, means of other values per question by Student's t on the differences, and what is
computed of a split as a whole (F1, MCC) by a paired bootstrap (`orchestrator.analysis.bootstrap`).

Several trials are compared in two ways. `any_difference` tests every pair and corrects for their
number (Bonferroni). Tests of the best trial alone, corrected for k - 1 comparisons, would not do:
which one is best is known only from the same answers, so they find a difference among equal trials
in 13% of sweeps of 10 trials and in 60% of sweeps of 200 (simulated, 900 questions; every pair: 4%
and 4%). `compare_with_best` tests the best against each other trial and corrects for k - 1
comparisons (Holm): it says which trials may be the best one. The trial that truly is best is among
them in more than 95% of sweeps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.analysis.bootstrap import (
    BOOTSTRAP_SEED,
    interval,
    normal_p_values,
    sampled,
    standard_errors,
)
from orchestrator.analysis.question_values import QuestionValues, measured
from orchestrator.runs.predictions import Predictions, shared_ids
from trainables.metrics.registry import find_statistic
from trainables.spec.metric import MetricSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
MCNEMAR, PAIRED_T = "exact McNemar", "paired t"
BOOTSTRAP = f"paired bootstrap (seed {BOOTSTRAP_SEED})"
Verdict = Literal["better", "worse", "tie"]


@dataclass(frozen=True)
class Comparison:
    """a against b on `count` questions; `difference` is a's value less b's.

    `low` and `high` bound the difference with 95% confidence: for shares by Agresti and Min (2005,
    half a question added to each cell of the table of pairs), by the bootstrap for metrics of a
    split as a whole, else by Student's t. `p_value` is
    two-sided, of `test`; if this is one of several `comparisons` it is adjusted for their number,
    and the interval is not. Where values are shares `only_a` and `only_b` count the questions that
    one of the two alone has true.
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
    comparisons: int = 1


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a proportion of which `share` was seen in `count` (Wilson 1927).

    (0, 1) if `count` is 0. scipy's `proportion_ci` gives the same and takes 200 times as long.
    """
    if count <= 0:
        return 0.0, 1.0
    z = _normal_quantile()
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = _wilson_half_width(share, count, z)
    low = 0.0 if share <= 0 else max(0.0, middle - half)
    return low, 1.0 if share >= 1 else min(1.0, middle + half)


def split_interval(predictions: Predictions, metric: MetricSpec) -> tuple[float, float] | None:
    """The 95% interval of a metric that is no share: of a split as a whole by the bootstrap, of a
    mean of values by Student's t. None for one that is not kept for each question, of fewer than
    two, or without any spread: all answers right, say, tell nothing of the error."""
    values = QuestionValues.of(predictions, metric) if metric.is_compared else None
    if values is None or len(values.ids) < 2:
        return None
    if metric.statistic:
        found = _sampled(values.numbers, metric)
        low, high = interval(float(found[0]), float(standard_errors(found)), _normal_quantile())
    else:
        low, high = _mean_interval(values.numbers[None, :].astype(float))[1:]
    return (low, high) if low < high else None


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the mean of the questions' values, within [0, 1] if they are; (nan, nan)
    of fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    low, high = interval(statistics.fmean(values), error, _normal_quantile())
    return max(low, min(0.0, *values)), min(high, max(1.0, *values))


def half_width_95(share: float, count: int) -> float:
    """Half the width of Wilson's 95% interval around a share of `count` questions, for z = 1.96."""
    return _wilson_half_width(share, count, 1.96)


def mcnemar(only_a: ArrayLike, only_b: ArrayLike) -> Any:
    """The exact two-sided p-value that two paired proportions are equal (McNemar 1947).

    `only_a` and `only_b` count the questions that one of the two has true: two numbers, or arrays
    of one shape. The p-value is 1 if there are none.
    """
    import numpy
    from scipy.special import bdtr  # scipy.stats takes 0.4 s to import

    fewer, differing = numpy.minimum(only_a, only_b), numpy.add(only_a, only_b)
    return numpy.minimum(1.0, 2 * bdtr(fewer, differing, 0.5))  # twice a tail of the binomial


def name_of_test(metric: MetricSpec) -> str:
    """The name of the test by which trials are compared in the metric."""
    if metric.statistic:
        return BOOTSTRAP
    return MCNEMAR if metric.is_share_of_questions else PAIRED_T


def share_interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    """The 95% interval of the difference of two paired proportions (Agresti and Min 2005)."""
    total = count + 2
    middle = (only_a - only_b) / total
    variance = ((only_a + only_b + 1) / total - middle * middle) / total
    half = _normal_quantile() * math.sqrt(variance)
    return max(-1.0, middle - half), min(1.0, middle + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number: at 5% the chance of any false one is 5% (Holm 1979)."""
    adjusted, least = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def compare(a: Predictions, b: Predictions, *, metric: MetricSpec) -> Comparison:
    """a against b, paired by question id.

    Raises ValueError if they have no question in common for which the metric was measured.
    """
    return _compared(QuestionValues.of(a, metric), QuestionValues.of(b, metric), metric)


def compare_with_best(
    best: Predictions, others: Sequence[Predictions], *, metric: MetricSpec
) -> list[Comparison | None]:
    """`best` against each of the others, Holm over all; None for one without a common question."""
    of_best = QuestionValues.of(best, metric)
    values = {place: QuestionValues.of(other, metric) for place, other in enumerate(others)}
    found = {
        place: _compared(of_best, of_other, metric)
        for place, of_other in values.items()
        if shared_ids([of_best.ids, of_other.ids])
    }
    adjusted = holm([item.p_value for item in found.values()])
    compared = {
        place: replace(
            item,
            p_value=p_value,
            verdict=_verdict(metric.gain(item.difference), p_value),
            comparisons=len(found),
        )
        for (place, item), p_value in zip(found.items(), adjusted, strict=True)
    }
    return [compared.get(place) for place in range(len(others))]


def asked_alike(trials: Sequence[Predictions], *, metric: MetricSpec) -> list[int]:
    """The places of the trials that answered the first one's questions, itself among them."""
    ids = [measured(item, metric).ids for item in trials]
    return [at for at, own in enumerate(ids) if at == 0 or _are_alike(ids[0], own)]


def _are_alike(best: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether they share half of the questions: splits by other seeds share a few by chance."""
    shared = shared_ids([best, other])
    return bool(shared) and 2 * len(shared) >= len(best)


def any_difference(trials: Sequence[Predictions], *, metric: MetricSpec) -> float | None:
    """The p-value that no two trials differ in the metric; None if they can't be compared.

    The smallest p of all pairs, times their number (Bonferroni): it holds however alike trials are.
    (Cochran's Q does not: it takes two near copies among others for a difference.)
    """
    import numpy

    values = [QuestionValues.of(item, metric) for item in trials]
    common = shared_ids([item.ids for item in values])
    if len(values) < 2 or not common:
        return None
    if metric.statistic:
        p_values = _bootstrap_of_pairs([_sampled(item.at(common), metric) for item in values])
    else:
        numbers = numpy.array([item.at(common) for item in values], dtype=float)
        test = _mcnemar_of_pairs if metric.is_share_of_questions else _t_of_pairs
        p_values = test(numbers)
    return float(min(1.0, len(p_values) * p_values.min()))


def _compared(a: QuestionValues, b: QuestionValues, metric: MetricSpec) -> Comparison:
    common = shared_ids([a.ids, b.ids])
    if not common:
        raise ValueError("the two have no question in common")
    compared = _compared_shares if metric.is_share_of_questions else _compared_means
    compared = _compared_statistics if metric.statistic else compared
    return compared(a.at(common), b.at(common), metric)


def _compared_statistics(a: NDArray[Any], b: NDArray[Any], metric: MetricSpec) -> Comparison:
    differences = _sampled(a, metric) - _sampled(b, metric)
    difference, error = float(differences[0]), standard_errors(differences)
    low, high = interval(difference, float(error), _normal_quantile())
    p_value = float(normal_p_values(differences[0], error))
    verdict = _verdict(metric.gain(difference), p_value)
    return Comparison(difference, low, high, p_value, verdict, len(a), test=BOOTSTRAP)


def _sampled(values: NDArray[Any], metric: MetricSpec) -> NDArray[Any]:
    """The statistic of these questions, (questions, keys), and of each draw of them."""
    return sampled(find_statistic(metric), values.T.tolist())


def _bootstrap_of_pairs(samples: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The p-values of all pairs of trials, of each what `_sampled` gives."""
    import numpy

    found = []
    for row in range(len(samples) - 1):
        differences = samples[row] - numpy.stack(samples[row + 1 :])
        found.append(normal_p_values(differences[:, 0], standard_errors(differences)))
    return numpy.concatenate(found)


def _compared_shares(a: NDArray[Any], b: NDArray[Any], metric: MetricSpec) -> Comparison:
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    difference = (only_a - only_b) / len(a)
    low, high = share_interval(only_a, only_b, len(a))
    p_value = float(mcnemar(only_a, only_b))
    verdict = _verdict(metric.gain(difference), p_value)
    return Comparison(difference, low, high, p_value, verdict, len(a), only_a, only_b)


def _compared_means(a: NDArray[Any], b: NDArray[Any], metric: MetricSpec) -> Comparison:
    differences = (a - b)[None, :]
    mean, low, high = _mean_interval(differences)
    p_value = float(_t_p_values(differences)[0])
    verdict = _verdict(metric.gain(mean), p_value)
    return Comparison(mean, low, high, p_value, verdict, len(a), test=PAIRED_T)


def _mean_interval(values: NDArray[Any]) -> tuple[float, float, float]:
    """The mean of a row of values, (1, questions), and its 95% interval; see _means_and_errors."""
    mean, error = (float(item[0]) for item in _means_and_errors(values))
    half = error * _t_quantile(values.shape[1]) if error else 0.0
    return mean, mean - half, mean + half


def _verdict(gain: float, p_value: float) -> Verdict:
    if p_value >= 1 - CONFIDENCE or gain == 0:
        return "tie"
    return "better" if gain > 0 else "worse"


def _mcnemar_of_pairs(true: NDArray[Any]) -> NDArray[Any]:
    """The p-values of all pairs of rows; `true` holds a row of ones and zeros per trial."""
    import numpy

    both = true @ true.T
    only = both.diagonal()[:, None] - both  # [a, b]: the questions that a alone has true
    first, second = numpy.triu_indices(len(true), k=1)
    p_values: NDArray[Any] = mcnemar(only[first, second], only[second, first])
    return p_values


def _t_of_pairs(numbers: NDArray[Any]) -> NDArray[Any]:
    """The p-values of all pairs of rows; `numbers` holds a row of values per trial."""
    import numpy

    rows = range(len(numbers) - 1)
    return numpy.concatenate([_t_p_values(numbers[row] - numbers[row + 1 :]) for row in rows])


def _t_p_values(differences: NDArray[Any]) -> NDArray[Any]:
    """Student's two-sided p of each row. Differences that are all equal have no spread: theirs is
    the p of the exact test that turns signs, by which one or two questions show nothing."""
    import numpy
    from scipy.special import stdtr

    count = differences.shape[1]
    means, errors = _means_and_errors(differences)
    has_spread = errors > 0
    t = numpy.abs(means) / numpy.where(has_spread, errors, 1.0)
    without = numpy.where(means == 0, 1.0, 2.0 ** (1 - count))
    return numpy.where(has_spread, 2 * stdtr(max(1, count - 1), -t), without)


def _means_and_errors(differences: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean of each row and its standard error; 0 for equal differences, or a single one."""
    import numpy

    count = differences.shape[1]
    is_constant = (differences == differences[:, :1]).all(axis=1)
    means = numpy.where(is_constant, differences[:, 0], differences.mean(axis=1))
    if count < 2:
        return means, numpy.zeros(len(differences))
    errors = differences.std(axis=1, ddof=1) / math.sqrt(count)
    return means, numpy.where(is_constant, 0.0, errors)


def _wilson_half_width(share: float, count: int, z: float) -> float:
    spread = math.sqrt(share * (1.0 - share) / count + (z / (2.0 * count)) ** 2)
    return z * spread / (1.0 + z * z / count)


def _normal_quantile() -> float:
    return statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def _t_quantile(count: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
