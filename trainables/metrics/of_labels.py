"""Metrics of answers that are labels, by scikit-learn.

F1 and MCC are of a split as a whole. An answer that names no label (NO_LABEL) is wrong, and no
class: F1's averages are over the labels that occur in the gold of the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    from sklearn.metrics import f1_score

    gold, answered = _columns(rows)
    labels = sorted(set(gold))
    found = f1_score(gold, answered, labels=labels, average=None, zero_division=0)
    return dict(zip(labels, map(float, found), strict=True))


def _averaged_f1(average: str) -> Callable[[Sequence[Scores]], float]:
    def value(rows: Sequence[Scores]) -> float:
        from sklearn.metrics import f1_score

        gold, answered = _columns(rows)
        labels = sorted(set(gold))
        return float(f1_score(gold, answered, labels=labels, average=average, zero_division=0))

    return value


def _balanced_accuracy(rows: Sequence[Scores]) -> float:
    from sklearn.metrics import recall_score

    gold, answered = _columns(rows)
    labels = sorted(set(gold))
    return float(recall_score(gold, answered, labels=labels, average="macro", zero_division=0))


def _mcc(rows: Sequence[Scores]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(*_columns(rows)))


def _columns(rows: Sequence[Scores]) -> tuple[list[str], list[str]]:
    return [row[GOLD_LABEL] for row in rows], [row[ANSWERED_LABEL] for row in rows]


def _of_split(name: str, title: str, *, format: str = ".1%") -> MetricSpec:
    return MetricSpec(name, title, format=format)


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
    "macro_f1": Metric(_of_split("macro_f1", "macro F1"), labels_of, _averaged_f1("macro")),
    "weighted_f1": Metric(
        _of_split("weighted_f1", "weighted F1"), labels_of, _averaged_f1("weighted")
    ),
    "balanced_accuracy": Metric(
        _of_split("balanced_accuracy", "balanced accuracy"), labels_of, _balanced_accuracy
    ),
    "mcc": Metric(_of_split("mcc", "MCC", format=".3f"), labels_of, _mcc),
    "not_followed_rate": Metric(_NOT_FOLLOWED, labels_of),
}
