"""Columns and metrics that follow from a trial's measurements and its prediction. LIGHT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.resources.gpu_overhead import GPU_OVERHEAD_BYTES

PREDICTED = {  # a column of results.csv, a metric in MLflow: a number in prediction.json
    f"predicted_{name}": name
    for name in (
        "train_memory_bytes",
        "eval_memory_bytes",
        "device_memory_bytes",
        "train_flops",
        "eval_flops",
    )
}


def estimated_metrics(prediction: Mapping[str, Any] | None) -> dict[str, float]:
    """A prediction's numbers under the names of PREDICTED; those that it lacks are not there."""
    given = prediction or {}
    return {
        column: float(given[name])
        for column, name in PREDICTED.items()
        if isinstance(given.get(name), int | float)
    }


def peak_memory_bytes(metrics: Mapping[str, float]) -> float | None:
    """What tensors took at most, in training or in evaluation; None if neither was measured."""
    names = ("train_peak_memory_bytes", "eval_peak_memory_bytes")
    return max((metrics[name] for name in names if name in metrics), default=None)


def gpu_memory_bytes(metrics: Mapping[str, float]) -> float | None:
    """What a GPU must have for the trial: its tensors, and what CUDA takes beside them.

    The latter is what was seen where the trial had a GPU alone, else GPU_OVERHEAD_BYTES. None if
    no peak was measured.
    """
    peak = peak_memory_bytes(metrics)
    if peak is None:
        return None
    beside: float = GPU_OVERHEAD_BYTES
    if has_gpu_alone(metrics):
        beside = metrics["device_peak_memory_bytes"] - metrics["reserved_peak_memory_bytes"]
    return max(peak, metrics.get("allocated_peak_memory_bytes", 0.0)) + max(0.0, beside)


def has_gpu_alone(metrics: Mapping[str, float]) -> bool:
    """Whether a trial was measured on a GPU that nobody else used, as far as it was told."""
    seen = {"device_peak_memory_bytes", "reserved_peak_memory_bytes"} <= metrics.keys()
    return seen and metrics.get("device_shared") == 0


def memory_byte_seconds(metrics: Mapping[str, float]) -> float | None:
    """That peak times the seconds that devices were held: what renting just so much would be."""
    peak, seconds = peak_memory_bytes(metrics), metrics.get("device_seconds")
    return None if peak is None or seconds is None else peak * seconds


def cost_metrics(
    metrics: Mapping[str, float], prediction: Mapping[str, Any] | None
) -> dict[str, float]:
    """What follows from a trial's measurements and its prediction: columns and metrics."""
    product = memory_byte_seconds(metrics)
    known = {} if product is None else {"memory_byte_seconds": product}
    return {**estimated_metrics(prediction), **known}
