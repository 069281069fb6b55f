"""How fast trials of each batch size trained, and in how much memory, all else being equal. LIGHT.

Only of finished trials that had their device alone: what others compute there meanwhile slows a
trial down by nobody knows how much.
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
ASSUMED_NOISE = 0.05  # of a speed, where no batch size was tried twice

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
        """Examples at once on each worker; of `auto` what fitted, 0 where nobody knows."""
        return _rows(self.trials[0])

    @property
    def step_examples(self) -> int:
        """Examples of an optimizer step, all workers together."""
        return step_examples(self.knobs)

    @property
    def speeds(self) -> list[float]:
        """Examples per second, the slowest first."""
        return sorted(item.metrics[SPEED] for item in self.alone)

    @property
    def speed(self) -> float:
        """The median; there must be one."""
        return median(self.speeds)

    @property
    def memory_bytes(self) -> float | None:
        """What the trials' tensors took in training at most; of each worker."""
        peaks = [item.metrics[MEMORY] for item in self.alone if MEMORY in item.metrics]
        return max(peaks, default=None)


@dataclass(frozen=True)
class Study:
    """Batch sizes of trials alike in all else, on devices of one name; the smallest first."""

    device: str
    sizes: tuple[BatchSize, ...]

    @property
    def timed(self) -> list[BatchSize]:
        """The batch sizes whose speed is known; the fastest first."""
        return sorted((size for size in self.sizes if size.alone), key=lambda size: -size.speed)

    @property
    def best(self) -> BatchSize:
        """The one of the highest median speed."""
        return self.timed[0]

    @property
    def ties(self) -> list[BatchSize]:
        """Those that can't be told from the best one; the fastest first."""
        return [size for size in self.timed[1:] if self._is_tie(size)]

    @property
    def noise(self) -> float | None:
        """The standard deviation of the logarithm of a speed within a batch size, all of them
        pooled: about its share of the speed. None where none was tried twice."""
        free = self._degrees_of_freedom
        squares = (
            (math.log(speed) - _log_mean(size)) ** 2 for size in self.timed for speed in size.speeds
        )
        return math.sqrt(sum(squares) / free) if free else None

    def _is_tie(self, size: BatchSize) -> bool:
        """By a t test on logarithms with the pooled deviation; a margin where there is none."""
        if self.noise is None:
            return size.speed > self.best.speed * (1 - ASSUMED_NOISE)
        from scipy.special import stdtrit  # scipy.stats takes 0.4 s to import

        of_each = sum(1 / len(each.speeds) for each in (self.best, size))
        quantile = float(stdtrit(self._degrees_of_freedom, (1 + CONFIDENCE) / 2))
        difference = _log_mean(self.best) - _log_mean(size)
        return difference <= quantile * self.noise * math.sqrt(of_each)

    @property
    def _degrees_of_freedom(self) -> int:
        return sum(len(size.speeds) - 1 for size in self.timed)


def studies(results: Iterable[TrialResult]) -> list[Study]:
    """What can be said of batch sizes, the study of most trials first.

    Trials that are alike in all that speed and memory depend on but the batch make a study, where
    they have at least two batch sizes. One whose `timed` is empty had no device alone.
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
    """Whether the trials of a study agree in the knob: speed or memory depends on it, and it is no
    part of the batch."""
    row = KNOBS.get(name)
    return name not in _BATCH and (row is None or row.affects_speed or not row.memory.is_none)


def _studies(items: Sequence[TrialResult]) -> list[Study]:
    """One for each device; batch sizes without a speed stand in all of them."""
    groups: dict[tuple[int, str, int], list[TrialResult]] = {}
    for item in items:
        groups.setdefault(_size(item), []).append(item)
    if len(groups) < 2:
        return []
    devices = sorted({_device(item) for item in items if _counts(item)}) or [""]
    return [Study(device, _sizes(groups, device)) for device in devices]


def _sizes(
    groups: Mapping[tuple[int, str, int], Sequence[TrialResult]], device: str
) -> tuple[BatchSize, ...]:
    return tuple(
        BatchSize(
            tuple(items),
            tuple(item for item in items if _counts(item) and _device(item) == device),
        )
        for _, items in sorted(groups.items())
    )


def _size(item: TrialResult) -> tuple[int, str, int]:
    """What tells a batch size from another, in order."""
    return _rows(item), str(item.knobs["batch_size"]), step_examples(item.knobs)


def _rows(item: TrialResult) -> int:
    given = item.knobs["batch_size"]
    return int(item.metrics.get("executed_batch_size", 0)) if given == AUTO else int(given)


def _counts(item: TrialResult) -> bool:
    return item.finished and has_device_alone(item) and item.metrics.get(SPEED, 0) > 0


def _device(item: TrialResult) -> str:
    return str(item.provenance.get("device", ""))


def _log_mean(size: BatchSize) -> float:
    return mean(map(math.log, size.speeds))
