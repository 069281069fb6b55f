"""The paired bootstrap over questions, for metrics that are no mean of values per question.

Questions are drawn again with replacement, the same for both trials, BOOTSTRAP_SAMPLES times with
BOOTSTRAP_SEED. The standard deviation of the metric over the draws is its standard error, and the
interval and the p-value are those of a normal distribution with it (Efron and Tibshirani 1993,
section 13.3): p-values that are corrected for many comparisons have to be smaller than 1 in the
number of draws.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainables.metrics.metric import Statistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOOTSTRAP_SAMPLES = 1000
BOOTSTRAP_SEED = 7


def sampled(statistic: Statistic, columns: Sequence[Sequence[Any]]) -> NDArray[Any]:
    """The statistic of the questions, and then of each draw of as many of them; `columns` as its
    `of_samples` takes them."""
    import numpy

    count = len(columns[0])
    whole = statistic.of_samples(columns, numpy.arange(count)[None, :])
    return numpy.concatenate([whole, statistic.of_samples(columns, _draws(count))])


def standard_errors(samples: NDArray[Any]) -> NDArray[Any]:
    """The standard deviation of each row's draws; `samples` has rows of what `sampled` gives."""
    errors: NDArray[Any] = samples[..., 1:].std(axis=-1, ddof=1)
    return errors


def normal_p_values(differences: NDArray[Any], errors: NDArray[Any]) -> NDArray[Any]:
    """Two-sided p-values that there is no difference; 1 where nothing varies."""
    import numpy
    from scipy.special import ndtr

    has_spread = errors > 0
    z = numpy.abs(differences) / numpy.where(has_spread, errors, 1.0)
    found: NDArray[Any] = numpy.where(has_spread, 2 * ndtr(-z), 1.0)
    return found


def interval(value: float, error: float, quantile: float) -> tuple[float, float]:
    """The interval around a value; (nan, nan) if the error is not known."""
    half = quantile * error
    return (value - half, value + half) if math.isfinite(half) else (math.nan, math.nan)


@functools.lru_cache(maxsize=4)
def _draws(count: int) -> NDArray[Any]:
    """The places of the questions of each draw, (draws, questions)."""
    import numpy

    return numpy.random.default_rng(BOOTSTRAP_SEED).integers(count, size=(BOOTSTRAP_SAMPLES, count))
