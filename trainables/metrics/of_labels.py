"""Metrics of answers that are labels.

F1 and MCC are of a split as a whole. An answer that names no label (NO_LABEL) is wrong, and no
class: F1's averages are over the labels that occur in the gold of the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trainables.metrics import confusion
from trainables.metrics.metric import (
    ANSWERED_LABEL,
    GOLD_LABEL,
    NO_LABEL,
    Metric,
    Scores,
    Statistic,
)
from trainables.spec.metric import MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

ACCURACY, NOT_FOLLOWED = "accuracy", "not_followed"


def labels_of(gold: str, answer: str) -> Scores:
    """The values of a question: both labels, whether they agree, and whether it names one."""
    return {
        ACCURACY: gold == answer,
        NOT_FOLLOWED: answer == NO_LABEL,
        GOLD_LABEL: gold,
        ANSWERED_LABEL: answer,
    }


def f1_by_label(rows: Sequence[Scores]) -> dict[str, float]:
    """The F1 of each label that occurs in the gold, in alphabetical order."""
    gold, answered = [row[GOLD_LABEL] for row in rows], [row[ANSWERED_LABEL] for row in rows]
    pairs, labels = confusion.codes(gold, answered)
    counts = confusion.counts_of(pairs[None, :], labels)
    found = dict(zip(labels, confusion.f1(counts)[0], strict=True))
    return {label: float(found[label]) for label in sorted(set(gold))}


def _statistic(of_counts: Callable[[NDArray[Any]], NDArray[Any]]) -> Statistic:
    def of_samples(columns: Sequence[Sequence[Any]], places: NDArray[Any]) -> NDArray[Any]:
        pairs, labels = confusion.codes(*columns)
        return of_counts(confusion.counts_of(pairs[places], labels))

    return Statistic((GOLD_LABEL, ANSWERED_LABEL), of_samples)


def _of_split(name: str, title: str, *, format: str = ".1%") -> MetricSpec:
    return MetricSpec(name, title, format=format, statistic=name)


_ACCURACY = MetricSpec(
    ACCURACY, "accuracy", format=".1%", per_question_key=ACCURACY, is_share_of_questions=True
)
_NOT_FOLLOWED = MetricSpec(
    "not_followed_rate",
    "answers without a label",
    direction="minimize",
    format=".1%",
    per_question_key=NOT_FOLLOWED,
    is_share_of_questions=True,
    in_headline=False,
)
LABEL_STATISTICS = {name: _statistic(row) for name, row in confusion.STATISTICS.items()}
OF_LABELS: dict[str, Metric] = {
    ACCURACY: Metric(_ACCURACY, labels_of),
    **{
        spec.name: Metric(spec, labels_of, LABEL_STATISTICS[spec.name].value)
        for spec in (
            _of_split("macro_f1", "macro F1"),
            _of_split("weighted_f1", "weighted F1"),
            _of_split("balanced_accuracy", "balanced accuracy"),
            _of_split("mcc", "MCC", format=".3f"),
        )
    },
    "not_followed_rate": Metric(_NOT_FOLLOWED, labels_of),
}
