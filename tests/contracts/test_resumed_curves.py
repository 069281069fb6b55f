"""An interrupted trial has the curve of an uninterrupted one: LoRA on every row of QUANTIZATIONS,
and each other method.

Losses, learning rates and evaluations agree to 1e-6, with everything that has a state: dropout, a
learning-rate schedule, the optimizer's moments, several micro-batches per step and a second epoch.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import EXECUTION, assert_same_curve, make_spec, make_trial, run
from trainables.methods.registry import METHODS
from trainables.models.base import load_base
from trainables.spec.events import Event
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training.loop import train
from trainables.training.progress import resumed_history

BUDGET = Budget(train_examples=46, eval_examples=3, rungs=(0.25, 0.5, 1.0))  # 12 steps, one smaller
KNOBS: dict[str, Any] = {
    "dropout": 0.2,
    "schedule": "cosine",
    "warmup": 0.3,
    "weight_decay": 0.1,
    "batch_size": 2,
    "gradient_accumulation": 2,
}


TRAINED = [name for name, method in METHODS.items() if method.trains]


def _slow_but(row: str, fast: str) -> Any:
    return row if row == fast else pytest.param(row, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Interruption:
    """An interruption after the event of a step; a killed trial saves no checkpoint."""

    step: int
    killed: bool


# Checkpoints are written at the rungs (steps 3, 6 and 12) and when a trial is closed, so the trial
# resumes from steps 2, 3 (twice), 5 and 6.
INTERRUPTIONS = [
    Interruption(2, killed=False),
    Interruption(3, killed=True),
    Interruption(5, killed=True),
    Interruption(5, killed=False),
    Interruption(10, killed=True),
]


@pytest.mark.parametrize("quantization", [_slow_but(row, "nf4") for row in QUANTIZATIONS])
def test_interrupted_over_and_over_a_trial_has_the_same_curve(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(tiny_llama, quantization)
    whole = run(spec, tmp_path / "whole")
    place = tmp_path / "0"
    for number, interruption in enumerate(INTERRUPTIONS, start=1):
        place = interrupted(spec, place, interruption, found=tmp_path / str(number))
    assert_same_curve(to_its_end(spec, place), whole)


@pytest.mark.parametrize("method", [name for name in TRAINED if name != "lora"])
def test_interrupted_over_and_over_every_method_has_the_same_curve(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, method=method, budget=BUDGET, gradient_checkpointing=True, **KNOBS)
    whole = run(spec, tmp_path / "whole")
    place = tmp_path / "0"
    for number, interruption in enumerate(INTERRUPTIONS, start=1):
        place = interrupted(spec, place, interruption, found=tmp_path / str(number))
    assert_same_curve(to_its_end(spec, place), whole)


@pytest.mark.parametrize("quantization", [_slow_but(row, "none") for row in ("none", "nf4")])
def test_a_host_that_was_just_started_goes_on_with_the_same_curve(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(tiny_llama, quantization)
    whole = run(spec, tmp_path / "whole")
    place = interrupted(spec, tmp_path / "0", Interruption(5, killed=True), found=tmp_path / "1")
    assert len(resumed_history(make_trial(spec, place).folder)) == 3
    fresh = load_base(spec, device="cpu")
    assert_same_curve(to_its_end(spec, place, base=fresh), whole)


def test_when_checkpoints_are_made_does_not_change_the_curve(
    tiny_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(tiny_llama, "nf4")
    often = replace(spec, execution=replace(EXECUTION, checkpoint_seconds=0.0))
    assert_same_curve(run(often, tmp_path / "often"), run(spec, tmp_path / "seldom"))


def _spec(model: Path, quantization: str) -> TrialSpec:
    return make_spec(model, quantization=quantization, budget=BUDGET, **KNOBS)


def interrupted(spec: TrialSpec, place: Path, interruption: Interruption, *, found: Path) -> Path:
    """Runs the trial in `place` until the interruption and copies its folder to `found`."""
    torch.manual_seed(interruption.step)  # the random state of the process must not matter
    running = train(make_trial(spec, place))
    while next(running).step < interruption.step:
        pass
    if not interruption.killed:
        running.close()
    shutil.copytree(place, found)
    running.close()
    return found


def to_its_end(spec: TrialSpec, place: Path, **given: Any) -> list[Event]:
    trial = make_trial(spec, place, **given)
    return resumed_history(trial.folder) + list(train(trial))
