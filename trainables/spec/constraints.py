"""Combinations of knobs that no machine can run, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.methods.registry import METHODS
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import KNOBS, NO_OFFLOAD, needs_ranks
from trainables.spec.quantization import quantization_of

Knobs = Mapping[str, Any]


def violations(knobs: Knobs) -> str | None:
    """Why no machine can run these canonical knobs, and what to do; None if some can."""
    return next((reason for refuse in _REFUSALS if (reason := refuse(knobs))), None)


def _trained_quantized_base(knobs: Knobs) -> str | None:
    if METHODS[knobs["method"]].allows_quantized_base or not _is_quantized(knobs):
        return None
    return (
        f"method {knobs['method']} trains the weights themselves, and {knobs['quantization']} "
        "weights are codes without gradients. Use quantization: none, or method: "
        f"{KNOBS['method'].default}."
    )


def _sharded_method(knobs: Knobs) -> str | None:
    if METHODS[knobs["method"]].allows_zero or not knobs.get("zero_stage", 0):
        return None
    return f"method {knobs['method']} is not supported with zero_stage. Use zero_stage: 0."


def _sharded_quantized_base(knobs: Knobs) -> str | None:
    if not _is_quantized(knobs) or knobs.get("zero_stage", 0) != 3:
        return None
    return (
        f"zero_stage 3 splits every weight over the workers, and {knobs['quantization']} weights "
        "are codes that belong to the scales of whole blocks. Use zero_stage: 2, or "
        "quantization: none."
    )


def _offload_without_zero(knobs: Knobs) -> str | None:
    if knobs.get("offload", NO_OFFLOAD) == NO_OFFLOAD or knobs.get("zero_stage", 0):
        return None
    return "offload: cpu is done by ZeRO. Use zero_stage: 2 or 3 with it, or offload: none."


def _shrinking_worker_group(knobs: Knobs) -> str | None:
    if not needs_ranks(knobs) or knobs["batch_size"] != AUTO:
        return None
    return (
        "batch_size: auto shrinks where memory runs out, and a worker that does leaves the others "
        "waiting. Give batch_size a number, or use workers: 1 and no zero_stage."
    )


def _paged_worker_group(knobs: Knobs) -> str | None:
    if not needs_ranks(knobs) or knobs["optimizer"] != "paged_adamw_8bit":
        return None
    return "optimizer paged_adamw_8bit is of one device only, not of a team's. Use adamw."


def _float16_zero(knobs: Knobs) -> str | None:
    """float16 with ZeRO uses DeepSpeed's loss scaling; that it equals training on one device is not
    tested."""
    if not knobs.get("zero_stage", 0) or knobs["compute_dtype"] != "float16":
        return None
    return "zero_stage is not supported with float16. Use bfloat16 or float32, or zero_stage: 0."


def _is_quantized(knobs: Knobs) -> bool:
    return quantization_of(knobs).bits < 16


_REFUSALS = (
    _trained_quantized_base,
    _sharded_method,
    _sharded_quantized_base,
    _offload_without_zero,
    _shrinking_worker_group,
    _paged_worker_group,
    _float16_zero,
)
