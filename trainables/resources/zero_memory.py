"""Sharding: what each of several workers holds under DeepSpeed, from what one device would.

Arithmetic on the parts of a simulation, not a simulation: nothing here has been measured. Sources:
Rajbhandari et al. 2020 (ZeRO) for what each stage splits; `trainables.training.deepspeed_engine`
and DeepSpeed's configuration for the sizes of its buffers. LIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.resources.estimate import Estimate
from trainables.spec.knobs import NO_OFFLOAD, REDUCE_BUCKET, needs_ranks

FLOAT32 = 4  # bytes
LIVE_PARAMETERS = 1_000_000_000  # numbers; stage3_max_live_parameters' default

_HOLD_ACTIVATIONS = ("loss", "backward_of_last_block")  # before gradients of many blocks are there


def sharded_train_bytes(prediction: Estimate, knobs: Mapping[str, Any]) -> int:
    """The tensors of one of the trial's workers in training; those of its only one if it is alone.

    From ZeRO stage 2 on gradients, optimizer states and the float32 copy that the optimizer steps
    on are split, with stage 3 the weights too. `offload: cpu` moves the optimizer's part to the
    host. Activations are each worker's own.
    """
    if not needs_ranks(knobs):
        return prediction.train_memory_bytes
    workers = int(knobs.get("workers", 1))
    base, trained, gradients, states = (
        _bytes(prediction, name) for name in ("base", "trained", "gradients", "optimizer_state")
    )
    accumulated = gradients if knobs.get("gradient_accumulation", 1) > 1 else 0
    activations = _activations(prediction, states + accumulated)
    if not knobs.get("zero_stage", 0):  # every worker holds all
        return base + trained + gradients + states + activations
    bucket = min(gradients, REDUCE_BUCKET * FLOAT32)
    stepped_on = 0 if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD else trained + states
    split = (gradients + stepped_on) // workers
    return _weights(base + trained, knobs) + split + bucket + activations


def sharded_eval_bytes(prediction: Estimate, knobs: Mapping[str, Any]) -> int:
    """As `sharded_train_bytes`, while the trial is judged: all of its workers answer all questions
    then, but with stage 3 each holds its part of the weights only."""
    model = _bytes(prediction, "base") + _bytes(prediction, "trained")
    return prediction.eval_memory_bytes - model + _weights(model, knobs)


def kept_bytes(prediction: Estimate, knobs: Mapping[str, Any]) -> int:
    """What of the training stays on a worker's device while the trial is judged.

    With `offload: cpu` DeepSpeed keeps the parts of the gradients on the host as well.
    """
    trained, gradients, states = (
        _bytes(prediction, name) for name in ("trained", "gradients", "optimizer_state")
    )
    if not knobs.get("zero_stage", 0):
        return states
    if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD:
        return 0
    return (gradients + trained + states) // int(knobs.get("workers", 1))


def _weights(model: int, knobs: Mapping[str, Any]) -> int:
    """Of a model of so many bytes what lies on one device: its part and what it has gathered."""
    if knobs.get("zero_stage", 0) < 3:
        return model
    return model // int(knobs.get("workers", 1)) + min(model, LIVE_PARAMETERS * FLOAT32)


def _activations(prediction: Estimate, held: int) -> int:
    """What a micro-batch keeps for its backward pass, with the largest of its temporaries.

    `held`: what lies on the device besides the model when it begins.
    """
    model = _bytes(prediction, "base") + _bytes(prediction, "trained")
    peaks = [prediction.phases[name] for name in _HOLD_ACTIVATIONS if name in prediction.phases]
    return max(0, max(peaks, default=0) - model - held)


def _bytes(prediction: Estimate, name: str) -> int:
    term = prediction.terms.get(name)
    return 0 if term is None else term.bytes
