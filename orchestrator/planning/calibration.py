"""Calibration: corrects memory forecasts by the memory that finished trials of their kind took.

Trials of one kind (model, method, quantization, workers, device) are compared. The numbers are read
from the trial folders, so a resumed sweep has them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.runs.ledger import TrialRecord
from trainables.spec.states import FINISHED

REMEMBERED = 20  # trials of a kind that count, the last ones
TO_LOWER = 3  # trials of a kind that must have taken less before a forecast is lowered
LOWEST, HIGHEST = 0.5, 2.0  # limits of a factor: a larger error has another cause
_MEASURED = {
    "uncorrected_train_memory_bytes": "train_peak_memory_bytes",
    "uncorrected_eval_memory_bytes": "eval_peak_memory_bytes",
}

Kind = tuple[str, ...]


@dataclass(frozen=True)
class Factors:
    """The factors of estimated bytes."""

    train: float = 1.0
    evaluation: float = 1.0


@dataclass
class Calibration:
    """The ratios of measured to predicted bytes of finished trials, by kind."""

    _ratios: dict[tuple[Kind, str], tuple[float, ...]] = field(default_factory=dict)

    def update(self, record: TrialRecord) -> None:
        """Counts a trial if it has finished with the batch that its forecast assumed."""
        forecast = record.folder.estimate()
        if record.state != FINISHED or forecast is None or not _has_planned_batch(record, forecast):
            return
        kind = kind_of(record.spec.knobs, str(forecast.get("device", "")))
        for predicted, measured in _MEASURED.items():
            expected, found = forecast.get(predicted) or 0, record.metrics.get(measured) or 0
            if expected > 0 and found > 0:
                before = self._ratios.get((kind, predicted), ())
                self._ratios[kind, predicted] = (*before, found / expected)[-REMEMBERED:]

    def factors(self, knobs: Mapping[str, Any], device: str) -> Factors:
        """Those for a trial with these knobs: the greatest ratio of the last REMEMBERED trials, so
        that none of them would have been forecast to need less than it took."""
        kind = kind_of(knobs, device)
        return Factors(*(self._factor(kind, predicted) for predicted in _MEASURED))

    def _factor(self, kind: Kind, predicted: str) -> float:
        ratios = self._ratios.get((kind, predicted), ())
        if not ratios:
            return 1.0
        greatest = max(ratios)
        if greatest < 1 and len(ratios) < TO_LOWER:
            return 1.0
        return min(max(greatest, LOWEST), HIGHEST)


def kind_of(knobs: Mapping[str, Any], device: str) -> Kind:
    """Estimates of trials of one kind are assumed to have the same error."""
    names = ("model", "method", "quantization", "zero_stage", "workers", "offload")
    return (*(str(knobs.get(name, 0)) for name in names), device)


def _has_planned_batch(record: TrialRecord, forecast: Mapping[str, Any]) -> bool:
    """A batch that shrank took less memory than the one that was forecast."""
    planned = forecast.get("micro_batch")
    executed = record.metrics.get("executed_batch_size")
    return planned is None or executed is None or int(executed) == int(planned)
