"""OBJECTIVES: what a trial is judged by, one row each with its direction.

A row's `value` is what the study is told; called, a row gives the one number that schedulers
compare, of which more is better whatever its direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Objective:
    """One thing to be had more of (maximize) or less of (minimize); its value is never NaN."""

    direction: Literal["maximize", "minimize"]
    value: Callable[[Metrics], float]

    def __call__(self, metrics: Metrics) -> float:
        """The value, with its sign turned where less is better."""
        value = self.value(metrics)
        return value if self.direction == "maximize" else -value


def em_acc_then_loss(metrics: Metrics) -> float:
    """EmAcc, ties broken by eval_loss by less than one question's weight.

    While every trial scores 0 the loss still orders them, so ASHA has something to stop by;
    a whole question more always wins. `em_acc_questions` is the number of questions asked.
    """
    questions = max(1.0, metrics["em_acc_questions"])
    loss = metrics["eval_loss"]
    preference = 1.0 / (1.0 + max(0.0, loss)) if math.isfinite(loss) else 0.0
    return metrics["em_acc"] + 0.999 * preference / questions


def eval_loss(metrics: Metrics) -> float:
    """eval_loss alone, for tasks that generate nothing; one that is not finite is the worst."""
    loss = metrics["eval_loss"]
    return loss if math.isfinite(loss) else math.inf


def _bytes(name: str) -> Callable[[Metrics], float]:
    """A measured peak; a trial that has none counts as the worst, so it is on no front."""

    def value(metrics: Metrics) -> float:
        return metrics.get(name, math.inf)

    return value


OBJECTIVES: dict[str, Objective] = {
    "em_acc": Objective("maximize", em_acc_then_loss),
    "eval_loss": Objective("minimize", eval_loss),
    "train_peak_memory_bytes": Objective("minimize", _bytes("train_peak_memory_bytes")),
    "eval_peak_memory_bytes": Objective("minimize", _bytes("eval_peak_memory_bytes")),
}
