"""Metrics of labels as functions of counts, so that thousands of resamples take milliseconds.

`counts[..., i, j]` is how many questions with the i-th label as gold have the j-th as the answer;
labels are those that occur in either, an answer without a label (NO_LABEL) among them. Definitions
are those of scikit-learn; averages are over the labels that occur in the gold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def codes(gold: Sequence[str], answered: Sequence[str]) -> tuple[NDArray[Any], list[str]]:
    """For each question the place of its pair among the counts of one table, and the labels;
    `counts_of` makes the table."""
    import numpy

    labels = sorted({*gold, *answered})
    places = {label: place for place, label in enumerate(labels)}
    pairs = [
        places[one] * len(labels) + places[other] for one, other in zip(gold, answered, strict=True)
    ]
    return numpy.array(pairs, dtype=numpy.int64), labels


def counts_of(pairs: NDArray[Any], labels: Sequence[str]) -> NDArray[Any]:
    """The counts of each row of `pairs`, (rows, questions): (rows, labels, labels)."""
    import numpy

    width = len(labels)
    offsets = width**2 * numpy.arange(len(pairs))[:, None]
    flat: Any = numpy.bincount((pairs + offsets).ravel(), minlength=width**2 * len(pairs))
    counts: NDArray[Any] = flat.reshape(len(pairs), width, width).astype(float)
    return counts


def f1(counts: NDArray[Any]) -> NDArray[Any]:
    """The F1 of each label, (..., labels); 0 for one that is neither gold nor answered."""
    found: NDArray[Any] = 2 * _hits(counts) / (counts.sum(-1) + counts.sum(-2)).clip(1)
    return found


def macro_f1(counts: NDArray[Any]) -> NDArray[Any]:
    return _mean_over_gold(f1(counts), counts)


def weighted_f1(counts: NDArray[Any]) -> NDArray[Any]:
    gold = counts.sum(-1)
    weighted: NDArray[Any] = (f1(counts) * gold).sum(-1) / gold.sum(-1)
    return weighted


def balanced_accuracy(counts: NDArray[Any]) -> NDArray[Any]:
    return _mean_over_gold(_hits(counts) / counts.sum(-1).clip(1), counts)


def mcc(counts: NDArray[Any]) -> NDArray[Any]:
    """Matthews' correlation for several labels (Gorodkin 2004); 0 where one side is constant."""
    import numpy

    gold, answered = counts.sum(-1), counts.sum(-2)
    total = gold.sum(-1)
    covariance = _hits(counts).sum(-1) * total - (gold * answered).sum(-1)
    spread = (total**2 - (gold**2).sum(-1)) * (total**2 - (answered**2).sum(-1))
    found: NDArray[Any] = numpy.where(spread > 0, covariance / numpy.sqrt(spread.clip(1)), 0.0)
    return found


def _hits(counts: NDArray[Any]) -> NDArray[Any]:
    hits: NDArray[Any] = counts.diagonal(axis1=-2, axis2=-1)
    return hits


def _mean_over_gold(values: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
    """The mean over the labels that occur in the gold."""
    occurs = counts.sum(-1) > 0
    mean: NDArray[Any] = (values * occurs).sum(-1) / occurs.sum(-1).clip(1)
    return mean


STATISTICS: dict[str, Callable[[Any], Any]] = {
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
}
