"""TrialResult: what is known of one trial, and the order of trials by a metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.spec.events import Event
from trainables.spec.metric import EVAL_LOSS, MetricSpec, TaskMetrics
from trainables.spec.states import BASELINE, FINISHED, TRIAL
from trainables.storage.trial_folder import TrialFolder

RUNNING = "running"
UNREADABLE = "unreadable"  # it may have ended: its summary may not be read here
Split = Literal["selection", "report"]


@dataclass(frozen=True)
class TrialResult:
    """What is known of one trial; metrics hold only finite numbers.

    `task_metrics` are those that its task declares. `metrics` are on the selection split (all of it
    if the trial has finished, else the last ones that it wrote), `report_metrics` on `report_count`
    questions of the report split. `costs` follow from them and from its prediction
    (`derived_metrics.cost_metrics`). `label` and `model_name` tell it and its model from the others
    of its run (`trial_label.TrialLabels`).
    """

    folder: TrialFolder
    role: str
    state: str  # one of trainables.spec.states.STATES, or 'running'
    reason: str
    knobs: Mapping[str, Any]
    metrics: Mapping[str, float]
    report_metrics: Mapping[str, float]
    report_count: int
    step: int
    units: int
    fraction: float
    seconds: Mapping[str, float]
    history: tuple[Event, ...]
    facts: Mapping[str, Any]
    provenance: Mapping[str, Any]
    attempts: int
    task_metrics: TaskMetrics
    warnings: tuple[str, ...] = ()
    model_digest: str = ""
    task_identity: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    label: str = ""
    model_name: str = ""

    @property
    def trial_id(self) -> str:
        return self.folder.trial_id

    @property
    def is_trial(self) -> bool:
        return self.role == TRIAL

    @property
    def is_baseline(self) -> bool:
        return self.role == BASELINE

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @property
    def primary(self) -> MetricSpec:
        """The metric by which the task ranks trials."""
        return self.task_metrics.primary

    @property
    def context(self) -> str:
        """The context in the prompts of the selection split: 'full', 'evidence', '' if unknown."""
        return self._of_selection("context")

    @property
    def evidence(self) -> str:
        """The origin of that evidence: 'gold', 'retrieved', 'none', '' if unknown."""
        return self._of_selection("evidence")

    def _of_selection(self, name: str) -> str:
        facts = self.facts.get("selection")
        return str(facts.get(name, "")) if isinstance(facts, Mapping) else ""

    def value(self, split: Split = "selection") -> float | None:
        """The primary metric on `split`, or None if it was not measured."""
        metrics = self.report_metrics if split == "report" else self.metrics
        return metrics.get(self.primary.name)

    @property
    def gain(self) -> float | None:
        """The primary metric on the selection split as a number of which more is better."""
        value = self.value()
        return None if value is None else self.primary.gain(value)

    def count(self, split: Split = "selection") -> int:
        """The number of questions behind the metrics of `split`; 0 if unknown."""
        if split == "report":
            return self.report_count
        return int(self.metrics.get(self.task_metrics.count_key, 0))


def ranked(results: Sequence[TrialResult], metric: MetricSpec) -> list[TrialResult]:
    """Finished trials that have `metric`, the best first; ties go to the lower eval_loss."""
    having = [
        item for item in results if item.is_trial and item.finished and metric.name in item.metrics
    ]

    def key(item: TrialResult) -> tuple[float, float, str]:
        loss = item.metrics.get(EVAL_LOSS.name, float("inf"))
        return -metric.gain(item.metrics[metric.name]), loss, item.trial_id

    return sorted(having, key=key)
