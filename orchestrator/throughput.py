"""Throughput: FLOPs a second that finished trials of a storage reached on a device."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from trainables.spec.states import FINISHED, TRIAL
from trainables.storage.run_folder import RunFolder

_LOOKED_AT = 200  # trials, of each run


def measured_flops_per_second(storage: Path, *, device: str) -> float | None:
    """The median over finished trials that had a device of this name alone; None without any."""
    found = list(_throughputs(storage, device)) if storage.is_dir() else []
    return statistics.median(found) if found else None


def _throughputs(storage: Path, device: str) -> Iterator[float]:
    runs = sorted(place for place in storage.iterdir() if (place / "trials").is_dir())
    for place in runs:
        for folder in list(RunFolder(place).trials())[-_LOOKED_AT:]:
            summary = folder.summary() or {}
            metrics = summary.get("metrics", {})
            if summary.get("state") != FINISHED or summary.get("role") != TRIAL:
                continue
            if summary.get("provenance", {}).get("device") != device:
                continue
            done = (metrics.get("train_flops") or 0) + (metrics.get("eval_flops") or 0)
            seconds = metrics.get("device_seconds") or 0
            if done > 0 and seconds > 0 and not metrics.get("device_shared"):
                yield done / seconds
