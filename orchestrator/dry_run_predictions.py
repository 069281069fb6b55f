"""What a sweep's trials will need, in words, as it becomes known: the dry run's second half."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.capacity import in_words
from orchestrator.forecast import Forecast, Forecaster
from orchestrator.plan import Planner
from orchestrator.planned_device import ASSUMED_UTILISATION, PlannedDevice
from orchestrator.representatives import Representatives, representatives
from orchestrator.throughput import measured_flops_per_second

_SHOWN = (
    "rank",
    "batch_size",
    "gradient_accumulation",
    "effective_batch_size",
    "sequence_length",
    "gradient_checkpointing",
    "optimizer",
)
_NO_TOKENIZER = (
    "  the task could not be tokenized here (model or data are not at hand): every row is taken "
    "to be as long as sequence_length allows"
)


def predicted_lines(
    planner: Planner, device: PlannedDevice, forecaster: Forecaster, *, storage: Path
) -> Iterator[str]:
    """A line or some for each cell, each as soon as its predictions are there; what all trials
    take together, last."""
    capacity = device.capacity
    each = in_words(capacity.bytes)
    count = f"{capacity.devices} x " if capacity.devices > 1 else ""
    yield f"Predicted for {count}{each} ({capacity.source}), {planner.device['compute_dtype']}:"
    flops: list[float] = []
    knew = True
    for (model, quantization, method), cell in representatives(planner.config).items():
        yield f"  {model}  {quantization}  {method}"
        for line, forecast in _cell_lines(planner, forecaster, cell):
            yield line
            if forecast is not None:
                flops.append(forecast.told.train_flops + forecast.told.eval_flops)
                knew &= forecast.told.knows_lengths
    if not knew:
        yield _NO_TOKENIZER
    yield from _hours(planner, device, flops, storage)


def _cell_lines(
    planner: Planner, forecaster: Forecaster, cell: Representatives
) -> Iterator[tuple[str, Forecast | None]]:
    seen: list[Any] = []
    named = {"typical": cell.typical, "smallest": cell.smallest, "largest": cell.largest}
    for name, configuration in named.items():
        spec = planner.spec(configuration)
        shape = {knob: spec.knobs.get(knob) for knob in _SHOWN}
        if shape in seen:
            continue
        seen.append(shape)
        refused = planner.known_rejection(spec)
        forecast = None if refused else forecaster.of(spec)
        words = refused or _words(forecast, forecaster)
        yield f"    {name:8}  {words}  [{_knobs(shape)}]", forecast


def _words(forecast: Forecast | None, forecaster: Forecaster) -> str:
    if forecast is None:
        return "can't be predicted"
    flops = f"train {forecast.told.train_flops:.3g} + eval {forecast.told.eval_flops:.3g} FLOPs"
    if forecast.refusal is not None:
        return f"does not fit: {forecast.refusal} {flops}"
    share = ""
    if forecaster.capacity is not None:
        share = f" ({forecast.device_memory_bytes / forecaster.capacity.bytes:.0%} of the device)"
    return (
        f"{in_words(forecast.device_memory_bytes)}{share}: training "
        f"{in_words(forecast.train_memory_bytes)}, evaluation "
        f"{in_words(forecast.eval_memory_bytes)}; {flops}"
    )


def _knobs(shape: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in shape.items() if value is not None)


def _hours(
    planner: Planner, device: PlannedDevice, flops: Sequence[float], storage: Path
) -> Iterator[str]:
    if not flops:
        return
    trials = planner.config.search.trials
    total = trials * sum(flops) / len(flops)
    yield f"  {trials} trials that none stops early: about {total:.2g} FLOPs"
    name = str(planner.device["device"])
    measured = measured_flops_per_second(storage, device=name)
    if measured is not None:
        hours = total / measured / 3600
        yield f"  about {hours:.2g} device hours at the {measured:.2g} FLOP/s measured on {name}"
    elif device.peak_flops is not None:
        hours = total / (device.peak_flops * ASSUMED_UTILISATION) / 3600
        yield (
            f"  about {hours:.2g} device hours if {ASSUMED_UTILISATION:.0%} of {name}'s "
            f"{device.peak_flops / 1e12:.0f} TFLOP/s are reached: assumed, not measured"
        )
    else:
        yield f"  device hours: unknown, nothing has been measured on {name}"
