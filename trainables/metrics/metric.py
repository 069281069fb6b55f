"""Metric: how an answer is scored, and a split from its questions' own values; Statistic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.spec.metric import MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scores = Mapping[str, Any]
"""What `of_question` gave for one question, as it stands in its row of predictions.jsonl."""

GOLD_LABEL, ANSWERED_LABEL = "gold_label", "answered_label"
NO_LABEL = ""  # the answered label of an answer that names none


@dataclass(frozen=True)
class Statistic:
    """A metric of a split as a whole, of its questions and of many samples of them at once.

    `of_samples(columns, places)`: the value of each row of `places`, (samples, questions);
    `columns` has what the questions' rows have under each of `keys`, or the rows themselves, as its
    only column, if there are no keys.
    """

    keys: tuple[str, ...]
    of_samples: Callable[[Sequence[Sequence[Any]], NDArray[Any]], NDArray[Any]]

    def value(self, rows: Sequence[Scores]) -> float:
        """The metric of these questions; there must be some."""
        import numpy

        columns = [[row[key] for row in rows] for key in self.keys] or [list(rows)]
        return float(self.of_samples(columns, numpy.arange(len(rows))[None, :])[0])


@dataclass(frozen=True)
class Metric:
    """One row of METRICS.

    `of_question(gold, answer)` gives the question's values under keys of its own: among them
    `spec.per_question_key`, if it has one. `of_split(rows)` is the value of a split from the rows
    of its questions, which may be any sample of them; None is the mean of `per_question_key`. Rows
    of metrics of labels have GOLD_LABEL and ANSWERED_LABEL, whatever else is asked for.
    """

    spec: MetricSpec
    of_question: Callable[[str, str], Scores]
    of_split: Callable[[Sequence[Scores]], float] | None = None

    def value(self, rows: Sequence[Scores]) -> float:
        """The metric of these questions; raises ValueError without any."""
        if not rows:
            raise ValueError(f"{self.spec.name} of no question")
        if self.of_split is not None:
            return float(self.of_split(rows))
        return float(sum(row[self.spec.per_question_key] for row in rows) / len(rows))
