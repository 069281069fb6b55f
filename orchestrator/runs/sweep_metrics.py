"""SweepMetrics: the metrics of a sweep's task, and the one that ranks its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import InputError
from trainables.spec.metric import EVAL_LOSS, MetricSpec, TaskMetrics, plain_metric
from trainables.tasks.registry import find_task


@dataclass(frozen=True)
class SweepMetrics:
    """`ranking` is the sweep's first objective, by default the task's primary metric."""

    task: TaskMetrics
    ranking: MetricSpec

    @property
    def primary(self) -> MetricSpec:
        return self.task.primary

    @property
    def judged(self) -> MetricSpec:
        """What trials are compared by, question by question: the ranking metric if each question
        has a value of it, else the task's primary one."""
        return self.ranking if self.ranking.per_question_key else self.primary


def sweep_metrics(config: Mapping[str, Any]) -> SweepMetrics:
    """Those of a configuration as sweep.yaml holds it.

    If its task is unknown here, the first objective is its only metric, a plain number.
    """
    objective = _first_objective(config)
    try:
        task = find_task(str(config.get("task"))).metrics
    except InputError:  # `task_fault` says so
        task = TaskMetrics((plain_metric(objective or EVAL_LOSS.name),))
    return SweepMetrics(task, task.find(objective) if objective else task.primary)


def task_fault(config: Mapping[str, Any]) -> str | None:
    """Why the metrics of a configuration's task are not known here, or None."""
    task = config.get("task")
    if task is None:
        return None
    try:
        find_task(str(task))
    except InputError as error:
        return f"{error} Its metrics are shown as plain numbers, and no questions are compared."
    return None


def _first_objective(config: Mapping[str, Any]) -> str | None:
    named = config.get("objective")
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and first else None
