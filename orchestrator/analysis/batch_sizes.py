"""Training speed and memory by batch size, among trials that are otherwise alike.

Only finished trials that had their device alone count: work of others on the same device slows a
trial down by an unknown factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from orchestrator.analysis.costs import has_device_alone
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import KNOBS, step_examples

SPEED = "examples_per_second"
MEMORY = "train_peak_memory_bytes"
CONFIDENCE = 0.95
ASSUMED_NOISE = 0.05  # share of a speed, if no batch size was tried twice

_BATCH = ("batch_size", "gradient_accumulation", "effective_batch_size")


@dataclass(frozen=True)
class BatchSize:
    """The trials of one batch size and accumulation; `alone` are those whose speed counts."""

    trials: tuple[TrialResult, ...]
    alone: tuple[TrialResult, ...] = ()

    @property
    def knobs(self) -> Mapping[str, Any]:
        return self.trials[0].knobs

    @property
    def rows(self) -> int:
        """The micro-batch size of each worker; for `auto` the executed one, 0 if unknown."""
        return _rows(self.trials[0])

    @property
    def step_examples(self) -> int:
        """Examples per optimizer step, over all workers."""
        return step_examples(self.knobs)

    @property
    def speeds(self) -> list[float]:
        """Examples per second of the trials in `alone`, in rising order."""
        return sorted(item.metrics[SPEED] for item in self.alone)

    @property
    def speed(self) -> float:
        """The median of `speeds`, which must not be empty."""
        return median(self.speeds)

    @property
    def memory_bytes(self) -> float | None:
        """The highest training peak of one worker, or None if none was measured."""
        peaks = [item.metrics[MEMORY] for item in self.alone if MEMORY in item.metrics]
        return max(peaks, default=None)


@dataclass(frozen=True)
class Study:
    """Batch sizes of trials that are otherwise alike, on devices of one name, in rising order."""

    device: str
    sizes: tuple[BatchSize, ...]

    @property
    def timed(self) -> list[BatchSize]:
        """The batch sizes with a known speed, the fastest first."""
        return sorted((size for size in self.sizes if size.alone), key=lambda size: -size.speed)

    @property
    def best(self) -> BatchSize:
        """The batch size with the highest median speed."""
        return self.timed[0]

    @property
    def ties(self) -> list[BatchSize]:
        """Batch sizes that are not significantly slower than the best, the fastest first."""
        return [size for size in self.timed[1:] if self._is_tie(size)]

    @property
    def noise(self) -> float | None:
        """The pooled standard deviation of log speed within a batch size, about the relative
        deviation of the speed. None if no batch size was tried twice."""
        free = self._degrees_of_freedom
        squares = (
            (math.log(speed) - _log_mean(size)) ** 2 for size in self.timed for speed in size.speeds
        )
        return math.sqrt(sum(squares) / free) if free else None

    def _is_tie(self, size: BatchSize) -> bool:
        """Whether a t test on log speeds with the pooled deviation finds no difference; without a
        deviation, whether the speed is within ASSUMED_NOISE of the best."""
        if self.noise is None:
            return size.speed > self.best.speed * (1 - ASSUMED_NOISE)
        from scipy.special import stdtrit  # scipy.stats takes 0.4 s to import

        variance = sum(1 / len(each.speeds) for each in (self.best, size))
        quantile = float(stdtrit(self._degrees_of_freedom, (1 + CONFIDENCE) / 2))
        difference = _log_mean(self.best) - _log_mean(size)
        return difference <= quantile * self.noise * math.sqrt(variance)

    @property
    def _degrees_of_freedom(self) -> int:
        return sum(len(size.speeds) - 1 for size in self.timed)


def studies(results: Iterable[TrialResult]) -> list[Study]:
    """The studies of a sweep, those with the most trials first.

    A study holds the trials that differ, of all that speed and memory depend on, in the batch only;
    it has at least two batch sizes. Its `timed` is empty if no trial had its device alone.
    """
    alike: dict[tuple[tuple[str, str], ...], list[TrialResult]] = {}
    for item in results:
        if item.is_trial and "batch_size" in item.knobs:
            alike.setdefault(_fixed(item.knobs), []).append(item)
    found = [study for items in alike.values() for study in _studies(items)]
    return sorted(found, key=lambda study: -sum(len(size.trials) for size in study.sizes))


def _fixed(knobs: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in knobs.items() if _is_fixed(name))


def _is_fixed(name: str) -> bool:
    """Whether the trials of a study agree in the knob: speed or memory depends on it, and it is not
    part of the batch."""
    row = KNOBS.get(name)
    return name not in _BATCH and (row is None or row.affects_speed or not row.memory.is_none)


def _studies(items: Sequence[TrialResult]) -> list[Study]:
    """One study per device name; batch sizes without a speed are in each of them."""
    groups: dict[tuple[int, str, int], list[TrialResult]] = {}
    for item in items:
        groups.setdefault(_size(item), []).append(item)
    if len(groups) < 2:
        return []
    devices = sorted({_device(item) for item in items if _has_speed(item)}) or [""]
    return [Study(device, _sizes(groups, device)) for device in devices]


def _sizes(
    groups: Mapping[tuple[int, str, int], Sequence[TrialResult]], device: str
) -> tuple[BatchSize, ...]:
    return tuple(
        BatchSize(
            tuple(items),
            tuple(item for item in items if _has_speed(item) and _device(item) == device),
        )
        for _, items in sorted(groups.items())
    )


def _size(item: TrialResult) -> tuple[int, str, int]:
    """The key that distinguishes and orders batch sizes."""
    return _rows(item), str(item.knobs["batch_size"]), step_examples(item.knobs)


def _rows(item: TrialResult) -> int:
    batch_size = item.knobs["batch_size"]
    executed = item.metrics.get("executed_batch_size", 0)
    return int(executed if batch_size == AUTO else batch_size)


def _has_speed(item: TrialResult) -> bool:
    return item.finished and has_device_alone(item) and item.metrics.get(SPEED, 0) > 0


def _device(item: TrialResult) -> str:
    return str(item.provenance.get("device", ""))


def _log_mean(size: BatchSize) -> float:
    return mean(map(math.log, size.speeds))
