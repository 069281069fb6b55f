"""Votes are counted by what the task's rule reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trials import make_spec, make_trial
from trainables.evaluation.voting import elected
from trainables.training.trial import TrialContext


@pytest.fixture
def trial(tiny_llama: Path, tmp_path: Path) -> TrialContext:
    return make_trial(make_spec(tiny_llama), tmp_path)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (["5"], "5"),
        (["7", "5", "5"], "5"),
        (["7", "5.0", "5", "$5"], "5.0"),  # one value, written in three ways
        (["7", "5"], "7"),  # a tie: what was drawn first
        (["7", "5", "5", "7"], "7"),
        (["Yes", "no", "yes."], "Yes"),
        (["?", "!", "5"], "5"),  # nothing is read in the others
        (["?", "!", "?"], "?"),
        (["", ""], ""),
    ],
)
def test_the_commonest_meaning_wins(trial: TrialContext, drawn: list[str], expected: str) -> None:
    example = trial.data.split("selection").examples[0]
    assert elected(trial.data.task, example, drawn) == expected
