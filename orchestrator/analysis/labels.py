"""Counts of gold and answered labels: confusions, F1 by label, answers that are always the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.runs.predictions import Predictions
from trainables.metrics.metric import ANSWERED_LABEL, GOLD_LABEL, NO_LABEL

ONE_LABEL = 0.95  # of the answers: (nearly) all of them
NOT_ONE_LABEL = 0.9  # of the gold: the questions do not ask for such answers


@dataclass(frozen=True)
class LabelCounts:
    """How often each label was answered for each label of the gold.

    `labels` are those of the gold and of the answers in alphabetical order, without NO_LABEL.
    `f1` has those of the gold.
    """

    labels: tuple[str, ...]
    confusions: Mapping[tuple[str, str], int]  # by gold and answer
    f1: Mapping[str, float]

    @property
    def questions(self) -> int:
        return sum(self.confusions.values())

    def gold(self, label: str) -> int:
        return sum(count for (gold, _), count in self.confusions.items() if gold == label)

    def answered(self, label: str) -> int:
        return sum(count for (_, answer), count in self.confusions.items() if answer == label)

    @property
    def one_label(self) -> str | None:
        """The answer to (nearly) all questions, maybe NO_LABEL, unless it is the gold of them."""
        answers = (*self.labels, NO_LABEL)
        label = max(answers, key=self.answered)
        is_one = self.answered(label) >= ONE_LABEL * self.questions
        return label if is_one and self.gold(label) < NOT_ONE_LABEL * self.questions else None

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Gold, answer and count of each confusion of different labels, the commonest first."""
        wrong = [(*pair, count) for pair, count in self.confusions.items() if pair[0] != pair[1]]
        return sorted(wrong, key=lambda each: (-each[2], *each[:2]))


def label_counts(predictions: Predictions) -> LabelCounts | None:
    """The counts of these answers; None if none of them has labels."""
    from trainables.metrics.of_labels import f1_by_label

    pairs = [
        (gold, answer)
        for gold, answer in zip(
            predictions.column(GOLD_LABEL), predictions.column(ANSWERED_LABEL), strict=True
        )
        if isinstance(gold, str) and isinstance(answer, str)
    ]
    if not pairs:
        return None
    rows: list[dict[str, Any]] = [
        {GOLD_LABEL: gold, ANSWERED_LABEL: given} for gold, given in pairs
    ]
    labels = sorted({label for pair in pairs for label in pair} - {NO_LABEL})
    return LabelCounts(tuple(labels), Counter(pairs), f1_by_label(rows))
