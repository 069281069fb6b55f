"""Alternatives: what would fit instead of a trial that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from trainables.spec.constraints import violations
from trainables.spec.knob_values import smallest_batch
from trainables.spec.knobs import NO_OFFLOAD, step_examples
from trainables.spec.quantization import QUANTIZATIONS, quantization_of
from trainables.spec.trial_spec import TrialSpec

_SMALLEST = "nf4"  # the quantization that is proposed


def micro_batch_sizes(examples: int) -> list[int]:
    """The micro-batches that make a step of so many examples in 1, 2, 3, ... parts, descending."""
    return sorted({-(-examples // parts) for parts in range(1, examples + 1)}, reverse=True)


def alternatives_of(spec: TrialSpec, *, devices: int) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    """What might fit instead: in words, the other spec, and the micro-batches to try."""
    knobs = spec.knobs
    if not spec.method.trains:
        yield from _quantized(spec, [1])
        return
    examples = step_examples(knobs) // int(knobs.get("workers", 1))
    own = [smallest_batch(knobs["batch_size"])]
    smaller = [size for size in micro_batch_sizes(examples) if size < own[0]]
    if smaller:
        yield "", spec, smaller
    if not knobs["gradient_checkpointing"]:
        other = _with(spec, gradient_checkpointing=True)
        yield "gradient_checkpointing: true", other, own
    yield from _quantized(spec, own)
    yield from _more_workers(spec, devices)


def _quantized(spec: TrialSpec, sizes: list[int]) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    bits = quantization_of(spec.knobs).bits
    if bits > QUANTIZATIONS[_SMALLEST].bits and spec.method.allows_quantized_base:
        other = _with(spec, quantization=_SMALLEST, double_quantization=False)
        yield f"quantization: {_SMALLEST}", other, sizes


def _more_workers(spec: TrialSpec, devices: int) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    """All devices together, each with a micro-batch of 1 and the same examples per step. A single
    device can still keep the optimizer's states in host memory."""
    knobs = spec.knobs
    workers = max(devices, int(knobs.get("workers", 1)))
    offloads = [NO_OFFLOAD] if workers > 1 else []
    offloads += ["cpu"] if spec.method.trains_whole_base else []
    for offload in offloads:
        change = {
            "workers": workers,
            "zero_stage": 3,
            "offload": offload,
            "batch_size": 1,
            "gradient_accumulation": max(1, step_examples(knobs) // workers),
        }
        other = _with(spec, **change)
        if violations(other.knobs) is None and other != spec:
            yield ", ".join(f"{name}: {value}" for name, value in change.items()), other, [1]


def _with(spec: TrialSpec, **knobs: Any) -> TrialSpec:
    return replace(spec, knobs={**spec.knobs, **knobs})


def batching(spec: TrialSpec, micro_batch: int | None) -> str:
    """The knobs that make the same examples per step of micro-batches of this size."""
    examples = step_examples(spec.knobs)
    parts = -(-examples // (micro_batch or 1))
    if parts * (micro_batch or 1) == examples:
        return f"batch_size: {micro_batch} with gradient_accumulation: {parts}"
    return f"batch_size: auto with effective_batch_size: {examples} ({micro_batch} rows at once)"
