"""Sharding: what each of several workers holds under DeepSpeed, from what one device would.

Arithmetic on the parts of a simulation, not a simulation: nothing here has been measured. Sources:
Rajbhandari et al. 2020 (ZeRO) for what each stage splits; `trainables.sharded` and DeepSpeed's
configuration for the sizes of its buffers. LIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.knobs import NO_OFFLOAD, REDUCE_BUCKET, needs_ranks
from trainables.prediction import Prediction

FLOAT32 = 4  # bytes
LIVE_PARAMETERS = 1_000_000_000  # numbers; stage3_max_live_parameters' default

_HOLD_ACTIVATIONS = ("loss", "backward_of_last_block")  # before gradients of many blocks are there


def sharded_train_bytes(prediction: Prediction, knobs: Mapping[str, Any]) -> int:
    """The tensors of one of the trial's workers in training; those of its only one if it is alone.

    From ZeRO stage 2 on gradients, optimizer states and the float32 copy that the optimizer steps
    on are split, with stage 3 the weights too. `offload: cpu` moves the optimizer's part to the
    host. Activations are each worker's own.
    """
    if not needs_ranks(knobs):
        return prediction.train_memory_bytes
    workers, stage = int(knobs.get("workers", 1)), int(knobs.get("zero_stage", 0))
    base, trained, gradients, states = (
        _bytes(prediction, name) for name in ("base", "trained", "gradients", "optimizer_state")
    )
    activations = _activations(prediction, states)
    if stage == 0:  # every worker holds all
        return base + trained + gradients + states + activations
    bucket = min(gradients, REDUCE_BUCKET * FLOAT32)
    stepped_on = 0 if knobs.get("offload", NO_OFFLOAD) != NO_OFFLOAD else trained + states
    split = (gradients + stepped_on) // workers
    if stage < 3:
        return base + trained + split + bucket + activations
    live = min(base + trained, LIVE_PARAMETERS * FLOAT32)
    return (base + trained) // workers + live + split + bucket + activations


def _activations(prediction: Prediction, states: int) -> int:
    """What a micro-batch keeps for its backward pass, with the largest of its temporaries.

    Of one that adds to gradients these are counted too: a little too much rather than too little.
    """
    model = _bytes(prediction, "base") + _bytes(prediction, "trained")
    peaks = [prediction.phases[name] for name in _HOLD_ACTIVATIONS if name in prediction.phases]
    return max(0, max(peaks, default=0) - model - states)


def _bytes(prediction: Prediction, name: str) -> int:
    term = prediction.terms.get(name)
    return 0 if term is None else term.bytes
