"""OBJECTIVES: the one number a rung is judged by, for ASHA and sampler alike; larger is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def em_acc_then_loss(metrics: Mapping[str, float]) -> float:
    """EmAcc, ties broken by eval_loss by less than one question's weight.

    While every trial scores 0 the loss still orders them, so ASHA has something to stop by;
    a whole question more always wins. `em_acc_questions` is the number of questions asked.
    """
    questions = max(1.0, metrics["em_acc_questions"])
    loss = metrics["eval_loss"]
    preference = 1.0 / (1.0 + max(0.0, loss)) if math.isfinite(loss) else 0.0
    return metrics["em_acc"] + 0.999 * preference / questions


def negative_eval_loss(metrics: Mapping[str, float]) -> float:
    """eval_loss alone, for tasks that generate nothing; one that is not finite is the worst."""
    loss = metrics["eval_loss"]
    return -loss if math.isfinite(loss) else -math.inf


OBJECTIVES: dict[str, Callable[[Mapping[str, float]], float]] = {
    "em_acc": em_acc_then_loss,
    "eval_loss": negative_eval_loss,
}
