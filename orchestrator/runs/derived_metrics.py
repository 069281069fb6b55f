"""Columns and metrics that are derived from a trial's measurements and its prediction."""

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
    """The numbers of a prediction under the names of PREDICTED, without those that it lacks."""
    numbers = prediction or {}
    return {
        column: float(numbers[name])
        for column, name in PREDICTED.items()
        if isinstance(numbers.get(name), int | float)
    }


def peak_memory_bytes(metrics: Mapping[str, float]) -> float | None:
    """The peak of the tensors' memory in training and evaluation, or None if not measured."""
    names = ("train_peak_memory_bytes", "eval_peak_memory_bytes")
    return max((metrics[name] for name in names if name in metrics), default=None)


def gpu_memory_bytes(metrics: Mapping[str, float]) -> float | None:
    """The GPU memory that the trial needs: its tensors and CUDA's overhead.

    The overhead is the measured one if the trial had a GPU alone, else GPU_OVERHEAD_BYTES. None if
    no peak was measured.
    """
    peak = peak_memory_bytes(metrics)
    if peak is None:
        return None
    overhead: float = GPU_OVERHEAD_BYTES
    if has_gpu_alone(metrics):
        overhead = metrics["device_peak_memory_bytes"] - metrics["reserved_peak_memory_bytes"]
    return max(peak, metrics.get("allocated_peak_memory_bytes", 0.0)) + max(0.0, overhead)


def has_gpu_alone(metrics: Mapping[str, float]) -> bool:
    """Whether a trial was measured on a GPU that no other process used, as far as recorded."""
    has_peaks = {"device_peak_memory_bytes", "reserved_peak_memory_bytes"} <= metrics.keys()
    return has_peaks and metrics.get("device_shared") == 0


def memory_byte_seconds(metrics: Mapping[str, float]) -> float | None:
    """The peak of the tensors' memory times the seconds that the trial held its devices."""
    peak, seconds = peak_memory_bytes(metrics), metrics.get("device_seconds")
    return None if peak is None or seconds is None else peak * seconds


def cost_metrics(
    metrics: Mapping[str, float], prediction: Mapping[str, Any] | None
) -> dict[str, float]:
    """The derived columns and metrics of a trial."""
    product = memory_byte_seconds(metrics)
    known = {} if product is None else {"memory_byte_seconds": product}
    return {**estimated_metrics(prediction), **known}
