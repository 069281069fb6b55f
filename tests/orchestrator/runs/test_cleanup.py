"""At a sweep's end, models of full fine-tuning are removed unless they are on the Pareto front."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.runs.cleanup import discard_dominated_models
from tests.orchestrator.run_builder import add_trial, new_run
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "storage" / "sweep")


def with_model(run: RunFolder, rank: int, *, state: str = "finished") -> TrialFolder:
    folder = add_trial(run, right=[1, 0], state=state, rank=rank)
    folder.write_model(_save)
    if state == "finished":
        folder.write_summary(folder.summary() or {})
    return folder


def test_the_models_of_beaten_trials_go_and_their_results_stay(run: RunFolder) -> None:
    winner, dominated = with_model(run, 4), with_model(run, 8)
    said = discard_dominated_models(run, keep={winner.trial_id})
    assert said == "Removed the models of 1 beaten trials (0.0 MiB)."
    assert winner.model_folder.is_dir() and not dominated.model_folder.exists()
    assert dominated.done and dominated.is_sound()
    assert dominated.damaged_adapter() == []
    assert dominated.model_was_removed and not winner.model_was_removed
    assert discard_dominated_models(run, keep={winner.trial_id}) is None


def test_a_trial_that_is_not_done_keeps_what_it_has(run: RunFolder) -> None:
    folder = with_model(run, 4)
    folder.discard_result()
    assert discard_dominated_models(run, keep=()) is None
    assert folder.model_folder.is_dir()


def test_adapters_stay(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0], rank=4)
    folder.write_adapter(_save)
    assert discard_dominated_models(run, keep=()) is None
    assert folder.adapter_folder.is_dir()


def _save(place: Path) -> None:
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"weights")
