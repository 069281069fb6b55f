"""Event: one thing that a running trial reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Event:
    """One thing that a running trial reports, in order; units and step never decrease.

    progress: some optimizer steps are done (at most one event per `progress_seconds`); metrics:
    train_loss (mean over completion tokens since the last event), train_loss_last_16_steps (the
    same over these steps), learning_rate, examples_per_second, tokens_seen, ....
    rung: the trial was evaluated at `fraction` of its budget; metrics also hold eval_loss, those
    of the task, the number of questions, and the peaks of memory.
    finished: the last event; the summary is on disk.

    `system`: system metrics of the worker's machine (`trainables.resources.system_metrics`). They
    are apart from the metrics because they are no result of the trial.
    """

    kind: Literal["progress", "rung", "finished"]
    step: int  # optimizer steps done
    units: int  # examples seen
    metrics: Mapping[str, float]
    fraction: float = 0.0  # of the budget
    seconds: float = 0.0  # of training, evaluation and saving so far, all attempts
    system: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Event:
        """The event that `to_json` wrote; a metric that is null in JSON is NaN."""
        metrics = {
            name: math.nan if metric is None else metric
            for name, metric in value["metrics"].items()
        }
        return cls(**{**value, "metrics": metrics})
