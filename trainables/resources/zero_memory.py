"""Memory of each of several workers under DeepSpeed's ZeRO, from the estimate for one device.

It is computed from the parts of that estimate; nothing here has been measured. Sources:
Rajbhandari et al. 2020 (ZeRO) for what each stage partitions, and for the sizes of buffers
`trainables.training.deepspeed_engine` and DeepSpeed's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.resources.estimate import Estimate
from trainables.spec.knobs import NO_OFFLOAD, REDUCE_BUCKET, needs_ranks

FLOAT32 = 4  # bytes
LIVE_PARAMETERS = 1_000_000_000  # the default of stage3_max_live_parameters

_HOLD_ACTIVATIONS = ("loss", "backward_of_last_block")  # phases with few gradients


def sharded_train_bytes(estimate: Estimate, knobs: Mapping[str, Any]) -> int:
    """Bytes of the tensors on the device of one of the trial's workers in training.

    From ZeRO stage 2 on, gradients, optimizer states and the optimizer's float32 copy of the
    weights are partitioned; with stage 3 the weights too. `offload: cpu` moves the optimizer's
    partition to the host. Activations are not partitioned.
    """
    if not needs_ranks(knobs):
        return estimate.train_memory_bytes
    workers = int(knobs.get("workers", 1))
    base, trained, gradients, states = (
        _bytes(estimate, name) for name in ("base", "trained", "gradients", "optimizer_state")
    )
    accumulated = gradients if knobs.get("gradient_accumulation", 1) > 1 else 0
    activations = _activations(estimate, states + accumulated)
    if not knobs.get("zero_stage", 0):  # nothing is partitioned
        return base + trained + gradients + states + activations
    bucket = min(gradients, REDUCE_BUCKET * FLOAT32)
    stepped_on = 0 if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD else trained + states
    split = (gradients + stepped_on) // workers
    return _weights(base + trained, knobs) + split + bucket + activations


def sharded_eval_bytes(estimate: Estimate, knobs: Mapping[str, Any]) -> int:
    """Bytes of the tensors on a worker's device in an evaluation, without `kept_bytes`.

    Every worker answers all questions; with stage 3 it holds only its partition of the weights.
    """
    model = _bytes(estimate, "base") + _bytes(estimate, "trained")
    return estimate.eval_memory_bytes - model + _weights(model, knobs)


def kept_bytes(estimate: Estimate, knobs: Mapping[str, Any]) -> int:
    """Bytes of the training's tensors that stay on a worker's device during an evaluation.

    With `offload: cpu` DeepSpeed keeps the partitions of the gradients on the host too.
    """
    trained, gradients, states = (
        _bytes(estimate, name) for name in ("trained", "gradients", "optimizer_state")
    )
    if not knobs.get("zero_stage", 0):
        return states
    if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD:
        return 0
    return (gradients + trained + states) // int(knobs.get("workers", 1))


def _weights(model: int, knobs: Mapping[str, Any]) -> int:
    """Bytes of a model's weights on one device: its partition and the gathered parameters."""
    if knobs.get("zero_stage", 0) < 3:
        return model
    return model // int(knobs.get("workers", 1)) + min(model, LIVE_PARAMETERS * FLOAT32)


def _activations(estimate: Estimate, held: int) -> int:
    """Bytes that a micro-batch keeps for its backward pass, with its largest temporaries.

    `held`: the bytes on the device besides the model when it starts.
    """
    model = _bytes(estimate, "base") + _bytes(estimate, "trained")
    peaks = [estimate.phases[name] for name in _HOLD_ACTIVATIONS if name in estimate.phases]
    return max(0, max(peaks, default=0) - model - held)


def _bytes(estimate: Estimate, name: str) -> int:
    term = estimate.terms.get(name)
    return 0 if term is None else term.bytes
