"""Metrics of answers that are labels.

F1 and MCC are of a split as a whole. An answer that names no label (NO_LABEL) is wrong, and no
class: F1's averages are over the labels that occur in the gold of the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainables.metrics import confusion
from trainables.metrics.metric import ANSWERED_LABEL, GOLD_LABEL, NO_LABEL, Metric, Scores
from trainables.spec.metric import MetricSpec

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
    gold, answered = _columns(rows)
    pairs, labels = _coded(gold, answered)
    found = dict(zip(labels, confusion.f1(confusion.counts_of(pairs, labels))[0], strict=True))
    return {label: float(found[label]) for label in sorted(set(gold))}


def _statistic(name: str) -> Callable[[Sequence[Scores]], float]:
    def value(rows: Sequence[Scores]) -> float:
        counts = confusion.counts_of(*_coded(*_columns(rows)))
        return float(confusion.STATISTICS[name](counts)[0])

    return value


def _coded(gold: list[str], answered: list[str]) -> tuple[Any, list[str]]:
    pairs, labels = confusion.codes(gold, answered)
    return pairs[None, :], labels


def _columns(rows: Sequence[Scores]) -> tuple[list[str], list[str]]:
    return [row[GOLD_LABEL] for row in rows], [row[ANSWERED_LABEL] for row in rows]


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
OF_LABELS: dict[str, Metric] = {
    ACCURACY: Metric(_ACCURACY, labels_of),
    **{
        spec.name: Metric(spec, labels_of, _statistic(spec.name))
        for spec in (
            _of_split("macro_f1", "macro F1"),
            _of_split("weighted_f1", "weighted F1"),
            _of_split("balanced_accuracy", "balanced accuracy"),
            _of_split("mcc", "MCC", format=".3f"),
        )
    },
    "not_followed_rate": Metric(_NOT_FOLLOWED, labels_of),
}
