"""Findings: what a preflight has found. It is read by a driver that imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Findings:
    """Everything that was found at once, each in one message without a repetition.

    `faults` would fail every trial of a model or with some data. `without_weights`: models whose
    folder has no weights yet; they can be planned for, and not be trained. `unchecked`: models of
    the hub that are not on this machine. `notes` are no faults.
    """

    faults: list[str] = field(default_factory=list)
    without_weights: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Findings:
        """What `to_json` gave; raises KeyError or TypeError for anything else."""
        return cls(**{name: [*map(str, value[name])] for name in cls.__dataclass_fields__})
