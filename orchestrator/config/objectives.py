"""Objectives: what a trial is judged by, each with its direction.

An objective's `value` is what the study is told. Called, an objective gives the number that
schedulers compare, of which more is better whatever the direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.config.sections import SweepConfig
from trainables.spec.metric import (
    EVAL_LOSS,
    EVAL_PEAK_MEMORY,
    TRAIN_PEAK_MEMORY,
    Direction,
    MetricSpec,
    TaskMetrics,
)
from trainables.tasks.registry import task_metrics

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """A number to maximize or to minimize; its value is never NaN."""

    direction: Direction
    value: Callable[[Metrics], float]

    def __call__(self, metrics: Metrics) -> float:
        """The value, with its sign turned if less is better."""
        value = self.value(metrics)
        return value if self.direction == "maximize" else -value


def objectives(metrics: TaskMetrics) -> dict[str, Objective]:
    """The objectives of a task's sweeps by name: the metric that ranks first, then those of every
    task, then the task's other metrics of all questions."""
    own = {
        spec.name: objective_of_metric(spec, count_key=metrics.count_key)
        for spec in metrics.specs
        if spec is metrics.primary or not spec.among
    }
    common = {
        spec.name: objective_of_metric(spec, count_key=metrics.count_key)
        for spec in (EVAL_LOSS, TRAIN_PEAK_MEMORY, EVAL_PEAK_MEMORY)
    }
    primary = metrics.primary.name
    return {primary: own[primary], **common, **own}


def objectives_of(config: SweepConfig) -> list[Objective]:
    """The objectives of a sweep, in its order. Raises InputError for an unknown task."""
    known = objectives(task_metrics(config.task, config.data))
    return [known[name] for name in config.objectives]


def objective_of_metric(metric: MetricSpec, *, count_key: str) -> Objective:
    """The metric as an objective; a share of questions has ties broken by eval_loss.

    A trial without the metric, or with one that is not finite, counts as the worst. `count_key` is
    the key of how many questions were asked.
    """

    def value(metrics: Metrics) -> float:
        found = metrics.get(metric.name, math.nan)
        if not math.isfinite(found):
            return -math.inf if metric.direction == "maximize" else math.inf
        if not metric.is_share_of_questions:
            return found
        return found + metric.gain(_preference(metrics, count_key))

    return Objective(metric.direction, value)


def _preference(metrics: Metrics, count_key: str) -> float:
    """Less than the weight of one question, and more for a lower eval_loss.

    While every trial scores 0 the loss orders them, so that ASHA has something to stop by; one more
    right question always wins.
    """
    questions = max(1.0, metrics[count_key])
    loss = metrics[EVAL_LOSS.name]
    preference = 1.0 / (1.0 + max(0.0, loss)) if math.isfinite(loss) else 0.0
    return 0.999 * preference / questions
