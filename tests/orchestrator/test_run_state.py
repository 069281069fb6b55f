"""Specification of a session's start: one space per name, one id per sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import SweepConfig, from_mapping
from orchestrator.session import make_folder, settle
from tests.orchestrator import tiny_sweep
from trainables.errors import InputError
from trainables.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "runs" / "tiny")
    make_folder(made)
    return made


def config(**sections: Any) -> SweepConfig:
    return from_mapping(tiny_sweep.mapping(**sections))


def test_a_new_folder_is_empty(run: RunFolder) -> None:
    assert [*run.path.iterdir()] == []


def test_a_sweep_keeps_its_id(run: RunFolder) -> None:
    first = settle(run, config())
    assert settle(run, config()) == first
    other = RunFolder(run.path.parent / "other")
    assert settle(other, config()) != first


def test_more_trials_and_other_resources_are_no_other_space(run: RunFolder) -> None:
    first = settle(run, config())
    grown = config(search={"algorithm": "random", "trials": 40}, resources={"concurrent_trials": 1})
    assert settle(run, grown) == first
    assert "trials: 40" in run.sweep_file.read_text()


def test_another_space_is_refused_and_leaves_all_as_it_was(run: RunFolder) -> None:
    settle(run, config())
    before = run.sweep_file.read_bytes(), run.state_file.read_bytes()
    changed = config(budget={"train_examples": 64, "eval_examples": 4, "seed": 3})
    with pytest.raises(InputError) as refused:
        settle(run, changed)
    told = "\n".join(refused.value.messages)
    assert "budget.train_examples: was 32, now 64" in told
    assert "--name" in told
    assert (run.sweep_file.read_bytes(), run.state_file.read_bytes()) == before


def test_what_a_session_remembers_survives_the_next(run: RunFolder) -> None:
    sweep_id = settle(run, config())
    run.write_state({"sweep_id": sweep_id, "trials_done": 3})
    settle(run, config())
    assert run.state() == {"sweep_id": sweep_id, "trials_done": 3}
