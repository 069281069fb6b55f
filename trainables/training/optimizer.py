"""Optimizers, parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trainables.resources.out_of_memory import DoesNotFitError

Knobs = Mapping[str, Any]


def learning_rate(knobs: Knobs, *, step: int, total_steps: int) -> float:
    """The learning rate of the optimizer's step number `step`, counted from 0."""
    factor = schedule_factor(
        knobs["schedule"], step=step, total_steps=total_steps, warmup=knobs["warmup"]
    )
    return float(knobs["learning_rate"]) * factor


def schedule_factor(schedule: str, *, step: int, total_steps: int, warmup: float) -> float:
    """The factor of the learning rate at optimizer step `step`, counted from 0, as in transformers.

    It rises linearly from 0 over the first `warmup` share of all steps (rounded up, so that step 0
    of any warm-up changes nothing), then stays ("constant") or falls towards 0, which the step
    after the last would reach ("linear", "cosine").
    """
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return step / rising
    done = (step - rising) / max(1, total_steps - rising)
    if schedule == "linear":
        return 1 - done
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0


def parameter_groups(
    parameters: Sequence[torch.nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """An optimizer's groups: no weight decay for biases and scales of norms, as in transformers'
    Trainer."""
    decaying = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay}
    others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (decaying, others) if group["params"]]


def make_optimizer(
    parameters: list[torch.nn.Parameter], knobs: Knobs, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of the knobs; raises DoesNotFitError if it can't run on the device."""
    rate, groups = knobs["learning_rate"], parameter_groups(parameters, knobs["weight_decay"])
    if knobs["optimizer"] == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if knobs["optimizer"] == "sgd":
        return torch.optim.SGD(groups, lr=rate, fused=True)
    if device.type != "cuda":
        raise DoesNotFitError(
            "optimizer: paged_adamw_8bit needs a CUDA device; this trial is on a CPU. Use adamw."
        )
    from bitsandbytes.optim import PagedAdamW8bit

    paged: torch.optim.Optimizer = PagedAdamW8bit(groups, lr=rate)
    return paged
