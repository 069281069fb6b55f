"""Correction: what finished trials took, against what was predicted, corrects later predictions.

Trials of one kind (model, method, quantization, workers, device) are compared. The numbers lie in
the trial directories, so a sweep that is resumed has them again. LIGHT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.runs.ledger import TrialRecord
from trainables.spec.states import FINISHED

REMEMBERED = 20  # trials of a kind, the last ones
TO_LOWER = 3  # so many trials of a kind must have taken less before less is predicted
LOWEST, HIGHEST = 0.5, 2.0  # a prediction that is farther off is no matter of a factor
_MEASURED = {
    "uncorrected_train_memory_bytes": "train_peak_memory_bytes",
    "uncorrected_eval_memory_bytes": "eval_peak_memory_bytes",
}

Kind = tuple[str, ...]


@dataclass(frozen=True)
class Factors:
    """What predicted bytes are multiplied by."""

    train: float = 1.0
    evaluation: float = 1.0


@dataclass
class Calibration:
    """The ratios of measured to predicted bytes of finished trials, by kind."""

    _ratios: dict[tuple[Kind, str], tuple[float, ...]] = field(default_factory=dict)

    def learn(self, record: TrialRecord) -> None:
        """Takes a trial into account, if it has finished as it was predicted."""
        told = record.folder.estimate()
        if record.state != FINISHED or told is None or not _matches_prediction(record, told):
            return
        kind = kind_of(record.spec.knobs, str(told.get("device", "")))
        for predicted, measured in _MEASURED.items():
            expected, found = told.get(predicted) or 0, record.metrics.get(measured) or 0
            if expected > 0 and found > 0:
                before = self._ratios.get((kind, predicted), ())
                self._ratios[kind, predicted] = (*before, found / expected)[-REMEMBERED:]

    def factors(self, knobs: Mapping[str, Any], device: str) -> Factors:
        """Those for a trial with these knobs: the greatest ratio that was seen lately, so that no
        trial of the last REMEMBERED would have been predicted to need less than it took."""
        kind = kind_of(knobs, device)
        return Factors(*(self._factor(kind, predicted) for predicted in _MEASURED))

    def _factor(self, kind: Kind, predicted: str) -> float:
        seen = self._ratios.get((kind, predicted), ())
        if not seen:
            return 1.0
        greatest = max(seen)
        if greatest < 1 and len(seen) < TO_LOWER:
            return 1.0
        return min(max(greatest, LOWEST), HIGHEST)


def kind_of(knobs: Mapping[str, Any], device: str) -> Kind:
    """Trials of one kind are off by alike."""
    names = ("model", "method", "quantization", "zero_stage", "workers", "offload")
    return (*(str(knobs.get(name, 0)) for name in names), device)


def _matches_prediction(record: TrialRecord, told: Mapping[str, Any]) -> bool:
    """A batch that shrank took less than what was predicted for it."""
    planned = told.get("micro_batch")
    executed = record.metrics.get("executed_batch_size")
    return planned is None or executed is None or int(executed) == int(planned)
