"""Estimates by the simulation itself, in this process, where a driver would ask another one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.planning.capacity import CPU, Capacity
from orchestrator.planning.forecaster import Forecaster
from trainables.resources.estimate import TrialEstimate
from trainables.simulation.estimate import predict_trial
from trainables.simulation.token_lengths import TokenLengths
from trainables.spec.trial_spec import TrialSpec


class InProcess:
    """What `orchestrator.planning.simulator.SimulatorClient` answers."""

    def __init__(self) -> None:
        self._lengths = TokenLengths(None)

    def of(self, request: Mapping[str, Any]) -> TrialEstimate | None:
        given = json.loads(json.dumps(request))  # as it goes through a pipe
        spec = TrialSpec.from_json(given.pop("trial"))
        return predict_trial(spec, lengths=self._lengths, **given)

    def close(self) -> None:
        """Nothing to end."""


def simulating_forecaster(available: int | None, *, devices: int = 1) -> Forecaster:
    """Forecasts for devices without a GPU and with so many bytes; None: nobody knows how many."""
    capacity = None if available is None else Capacity(available, CPU, "a test's", devices)
    return Forecaster(InProcess(), capacity=capacity, device=CPU)


def config_of(folder: Path) -> dict[str, Any]:
    """A model's config.json."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found
