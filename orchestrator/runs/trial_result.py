"""TrialResult, what is known of one trial, and how trials are ranked. LIGHT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.config.objectives import OBJECTIVES
from orchestrator.runs.trial_label import trial_label
from trainables.spec.events import Event
from trainables.spec.states import BASELINE, FINISHED, TRIAL
from trainables.storage.trial_folder import TrialFolder

RUNNING = "running"
Split = Literal["selection", "report"]


@dataclass(frozen=True)
class TrialResult:
    """What is known of one trial; metrics hold finite numbers only, absent ones are not there.

    `metrics` are on the selection split (the whole of it once finished), `report_metrics` on
    `report_count` questions of the report split. While a trial is not done its metrics are the
    last that it wrote. `costs`: what follows from them and from its prediction
    (`costs.cost_metrics`).
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
    warnings: tuple[str, ...] = ()
    model_digest: str = ""
    task_identity: Mapping[str, Any] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def trial_id(self) -> str:
        return self.folder.trial_id

    @property
    def label(self) -> str:
        return trial_label(self.knobs)

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
    def context(self) -> str:
        """What the prompts of the selection split showed: 'full' or 'evidence'; '' if unknown."""
        return self._of_selection("context")

    @property
    def evidence(self) -> str:
        """Whose evidence that was: 'gold', 'retrieved' or 'none'; '' if unknown."""
        return self._of_selection("evidence")

    def _of_selection(self, name: str) -> str:
        facts = self.facts.get("selection")
        return str(facts.get(name, "")) if isinstance(facts, Mapping) else ""

    def count(self, split: Split = "selection") -> int:
        """Questions behind the metrics of `split`; 0 when unknown."""
        if split == "report":
            return self.report_count
        return int(self.metrics.get("em_acc_questions", 0))


def objective(config: Mapping[str, Any]) -> str:
    """The metric that the sweep ranks by: its first objective; em_acc unless it names another."""
    named = config.get("objective") or "em_acc"
    return str(named[0] if isinstance(named, list) else named)


def ranked(results: Sequence[TrialResult], metric: str = "em_acc") -> list[TrialResult]:
    """Finished trials that have `metric`, the best first; ties go to the lower eval_loss.

    A metric that is no objective is maximised.
    """
    row = OBJECTIVES.get(metric)
    sign = 1 if row is not None and row.direction == "minimize" else -1
    having = [
        item for item in results if item.is_trial and item.finished and metric in item.metrics
    ]

    def key(item: TrialResult) -> tuple[float, float, str]:
        loss = item.metrics.get("eval_loss", float("inf"))
        return sign * item.metrics[metric], loss, item.trial_id

    return sorted(having, key=key)
