"""What would fit instead of a trial that does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from trainables.spec.constraints import violations
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import NO_OFFLOAD, step_examples
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import TrialSpec

_SMALLEST = "nf4"  # the quantization that is proposed


def micro_batch_sizes(examples: int) -> list[int]:
    """Rows at once that make a step of so many examples in 1, 2, 3, ... parts, falling."""
    return sorted({-(-examples // parts) for parts in range(1, examples + 1)}, reverse=True)


def alternatives_of(spec: TrialSpec, *, devices: int) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    """What might fit instead: in words, the other spec, and the rows at once to try."""
    knobs = spec.knobs
    if not spec.method.trains:
        yield from _quantized(spec, [1])
        return
    examples = step_examples(knobs) // int(knobs.get("workers", 1))
    given = knobs["batch_size"]
    as_given = [1] if given == AUTO else [int(given)]
    smaller = [rows for rows in micro_batch_sizes(examples) if rows < as_given[0]]
    if smaller:
        yield "", spec, smaller
    if not knobs["gradient_checkpointing"]:
        other = _with(spec, gradient_checkpointing=True)
        yield "gradient_checkpointing: true", other, as_given
    yield from _quantized(spec, as_given)
    yield from _more_workers(spec, devices)


def _quantized(spec: TrialSpec, sizes: list[int]) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    bits = QUANTIZATIONS[spec.knobs["quantization"]].bits
    if bits > QUANTIZATIONS[_SMALLEST].bits and spec.method.allows_quantized_base:
        other = _with(spec, quantization=_SMALLEST, double_quantization=False)
        yield f"quantization: {_SMALLEST}", other, sizes


def _more_workers(spec: TrialSpec, devices: int) -> Iterator[tuple[str, TrialSpec, list[int]]]:
    """All devices together, each with a row at a time of the same step; alone, one device can
    still leave the optimizer's part to the host."""
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


def batching(spec: TrialSpec, rows: int | None) -> str:
    """The micro-batch, and how many make the same effective batch."""
    examples = step_examples(spec.knobs)
    parts = -(-examples // (rows or 1))
    if parts * (rows or 1) == examples:
        return f"batch_size: {rows} with gradient_accumulation: {parts}"
    return f"batch_size: auto with effective_batch_size: {examples} ({rows} rows at once)"
