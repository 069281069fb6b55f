"""QuestionValues: what a metric is computed from, of each question that it was measured on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.runs.predictions import Predictions, places_of
from trainables.metrics.registry import find_statistic
from trainables.spec.metric import MetricSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class QuestionValues:
    """A metric's value of each question that it was measured on; a share's is true or false, and of
    a statistic there is a column for each of its keys."""

    ids: tuple[str, ...]
    numbers: NDArray[Any]

    @classmethod
    def of(cls, predictions: Predictions, metric: MetricSpec) -> QuestionValues:
        import numpy

        known = measured(predictions, metric)
        if metric.statistic:
            return cls._of_statistic(known, metric)
        kind = bool if metric.is_share_of_questions else float
        values = map(kind, known.column(metric.per_question_key))
        return cls(known.ids, numpy.fromiter(values, dtype=kind, count=len(known.ids)))

    @classmethod
    def _of_statistic(cls, known: Predictions, metric: MetricSpec) -> QuestionValues:
        """Of a statistic without keys there is one column, of the questions' rows."""
        import numpy

        columns = [known.column(key) for key in find_statistic(metric).keys]
        columns = columns or [tuple(map(known.row, range(len(known.ids))))]
        return cls(known.ids, numpy.array(columns, dtype=object).T)

    def at(self, ids: tuple[str, ...]) -> NDArray[Any]:
        """The values of these questions, in their order."""
        return self.numbers if ids == self.ids else self.numbers[places_of(ids, self.ids)]


def measured(predictions: Predictions, metric: MetricSpec) -> Predictions:
    """The questions on which the metric was measured."""
    if not metric.statistic:
        return predictions.measured(metric.per_question_key)
    keys = find_statistic(metric).keys
    return predictions.measured(keys[0] if keys else metric.name)
