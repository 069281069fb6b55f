"""The calibration: measurements of finished trials correct later estimates of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.calibration import HIGHEST, TO_LOWER, Calibration
from orchestrator.runs.ledger import Ledger, TrialRecord
from tests.orchestrator import run_builder
from trainables.spec.knobs import canonical
from trainables.spec.states import STOPPED
from trainables.storage.run_folder import RunFolder

TOLD = {
    "uncorrected_train_memory_bytes": 1000,
    "uncorrected_eval_memory_bytes": 500,
    "device": "cpu",
    "micro_batch": 8,
}


def trial(
    run: RunFolder, *, train: float, evaluation: float = 500.0, told: Any = None, **knobs: Any
) -> TrialRecord:
    """A finished trial that took so much, with its prediction."""
    peaks = {"train_peak_memory_bytes": train, "eval_peak_memory_bytes": evaluation}
    executed = {"executed_batch_size": knobs.pop("executed", 8)}
    state = {"state": knobs.pop("state")} if "state" in knobs else {}
    folder = run_builder.add_trial(run, right=[1], metrics={**peaks, **executed}, **state, **knobs)
    folder.write_estimate({**TOLD, **(told or {})})
    record = Ledger(run).get(folder.trial_id)
    assert record is not None
    record.history = [_event(folder.summary())]
    return record


def _event(summary: Any) -> Any:
    from trainables.spec.events import Event

    return Event("rung", 1, 8, summary["metrics"], 1.0)


def factors(calibration: Calibration, device: str = "cpu", **knobs: Any) -> tuple[float, float]:
    found = calibration.factors(canonical({"model": "base_models/small", **knobs}), device)
    return found.train, found.evaluation


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_builder.new_run(tmp_path / "run")


def test_nothing_is_corrected_before_anything_has_finished() -> None:
    assert factors(Calibration()) == (1.0, 1.0)


def test_one_that_took_more_raises_the_predictions_of_its_kind_only(run: RunFolder) -> None:
    calibration = Calibration()
    calibration.update(trial(run, train=1100, evaluation=600))
    assert factors(calibration) == (1.1, 1.2)
    assert factors(calibration, rank=64) == (1.1, 1.2)
    assert factors(calibration, quantization="nf4") == (1.0, 1.0)
    assert factors(calibration, model="base_models/large") == (1.0, 1.0)
    assert factors(calibration, "cuda") == (1.0, 1.0)


def test_predictions_are_lowered_by_several_only_and_never_below_any_of_them(
    run: RunFolder,
) -> None:
    calibration = Calibration()
    for rank in range(TO_LOWER - 1):
        calibration.update(trial(run, train=900 + rank, evaluation=450, rank=rank + 1))
        assert factors(calibration) == (1.0, 1.0)
    calibration.update(trial(run, train=950, evaluation=400, rank=99))
    assert factors(calibration) == (0.95, 0.9)


def test_what_is_far_off_is_no_matter_of_a_factor(run: RunFolder) -> None:
    calibration = Calibration()
    calibration.update(trial(run, train=1e6))
    assert factors(calibration)[0] == HIGHEST


def test_only_a_trial_that_ran_to_its_end_as_predicted_counts(run: RunFolder) -> None:
    calibration = Calibration()
    calibration.update(trial(run, train=1500, rank=1, executed=4))  # its batch shrank
    calibration.update(trial(run, train=1500, rank=2, state=STOPPED))
    unpredicted = trial(run, train=1500, rank=3)
    unpredicted.folder.estimate_file.unlink()
    calibration.update(unpredicted)
    assert factors(calibration) == (1.0, 1.0)
