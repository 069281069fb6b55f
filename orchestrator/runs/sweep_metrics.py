"""SweepMetrics: the metrics of a sweep's task, and the one that ranks its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.errors import InputError
from trainables.spec.metric import EVAL_LOSS, MetricSpec, TaskMetrics
from trainables.tasks.registry import find_task, task_metrics


@dataclass(frozen=True)
class SweepMetrics:
    """`ranking` is the sweep's first objective, by default the task's primary metric."""

    task: TaskMetrics
    ranking: MetricSpec

    @property
    def primary(self) -> MetricSpec:
        return self.task.primary

    @property
    def per_question(self) -> MetricSpec:
        """The metric by which trials are compared on the same questions: the ranking metric if that
        can be done, else the first of the task's with which it can, or its primary one."""
        known = (self.ranking, *self.task.specs)
        return next((metric for metric in known if metric.is_compared), self.primary)


def sweep_metrics(config: Mapping[str, Any]) -> SweepMetrics:
    """The metrics of a configuration as in sweep.yaml.

    Of a task that is unknown here nobody knows which values are better: eval_loss is then its only
    metric. An objective that is unknown does not rank.
    """
    is_unknown = task_fault(config) is not None
    task = _UNKNOWN if is_unknown else task_metrics(str(config["task"]), _options(config))
    objective = _first_objective(config)
    return SweepMetrics(task, task.find(objective) or task.primary)


def task_fault(config: Mapping[str, Any]) -> str | None:
    """Why the metrics of the configured task are unknown here, or None."""
    if "task" not in config:
        return "task: missing."
    try:
        find_task(str(config["task"]))
    except InputError as error:
        return f"{error} Install the package that has it."
    return None


def _options(config: Mapping[str, Any]) -> Mapping[str, Any]:
    data = config.get("data")
    return data if isinstance(data, Mapping) else {}


def _first_objective(config: Mapping[str, Any]) -> str:
    named = config.get("objective")
    return str(named[0] if isinstance(named, list) and named else named)


_UNKNOWN = TaskMetrics((EVAL_LOSS,))
