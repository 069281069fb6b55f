"""A forecaster whose estimates are simulated in this process, not in the simulator's process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.planning.capacity import CPU, Capacity
from orchestrator.planning.forecaster import Forecaster
from trainables.data.token_lengths import TokenLengths
from trainables.resources.estimate import TrialEstimate
from trainables.simulation.estimate import predict_trial
from trainables.spec.trial_spec import TrialSpec


class InProcess:
    """Answers requests like `orchestrator.planning.simulator.SimulatorClient`, in this process."""

    def __init__(self) -> None:
        self._lengths = TokenLengths(None)

    def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None:
        given = json.loads(json.dumps(request))  # as the simulator's process gets it by a pipe
        spec = TrialSpec.from_json(given.pop("trial"))
        return predict_trial(spec, lengths=self._lengths, **given)

    def close(self) -> None:
        """Does nothing: there is no process to end."""


def simulating_forecaster(available: int | None, *, devices: int = 1) -> Forecaster:
    """A forecaster for CPU devices with `available` bytes; None: unknown capacity."""
    capacity = None if available is None else Capacity(available, CPU, "a test's", devices)
    return Forecaster(InProcess(), capacity=capacity, device=CPU)


def config_of(folder: Path) -> dict[str, Any]:
    """A model's config.json."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found
