"""A trial that is interrupted at any heartbeat resumes as if undisturbed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import EXECUTION, assert_same_curve, make_spec, make_trial, run
from trainables.errors import Interrupted
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget
from trainables.training.loop import train
from trainables.training.progress import resumed_history

BUDGET = Budget(train_examples=32, eval_examples=3, rungs=(0.25, 1.0))
RUNGS_ONLY = replace(EXECUTION, progress_seconds=1e9, checkpoint_seconds=1e9)
KNOBS: dict[str, Any] = {
    "dropout": 0.2,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "schedule": "cosine",
}


class Beats:
    """A heartbeat that is told to leave at one of its beats."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
    folder = tmp_path_factory.mktemp("whole")
    return run(make_spec(tiny_llama, budget=BUDGET, execution=RUNGS_ONLY, **KNOBS), folder)


@pytest.mark.parametrize(
    ("beat", "step"),
    [
        (1, 1),  # after a step
        (2, 2),  # after a step that a rung is due at
        (4, 2),  # in the middle of a rung's evaluation
        (5, 3),  # after the step behind a rung
        (10, 8),  # after the last step
        (13, 8),  # in the middle of the last evaluation
    ],
)
def test_a_trial_that_is_interrupted_saves_its_last_step_and_has_the_same_curve(
    tiny_llama: Path, tmp_path: Path, whole: list[Event], beat: int, step: int
) -> None:
    spec = make_spec(tiny_llama, budget=BUDGET, execution=RUNGS_ONLY, **KNOBS)
    trial = replace(make_trial(spec, tmp_path), heartbeat=Beats(beat))
    told: list[Event] = []
    with pytest.raises(Interrupted):
        told += train(trial)
    saved = max(trial.folder.checkpoints_folder.glob("step-*")).name
    assert saved == f"step-{step:08d}"
    before = resumed_history(trial.folder)
    assert_same_curve(before + list(train(make_trial(spec, tmp_path))), whole)


def test_an_interrupted_baseline_begins_anew(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(tiny_llama, method="untrained")
    trial = replace(make_trial(spec, tmp_path), heartbeat=Beats(2))
    with pytest.raises(Interrupted):
        list(train(trial))
    assert not trial.folder.done
    assert [event.kind for event in train(make_trial(spec, tmp_path))] == ["rung", "finished"]
