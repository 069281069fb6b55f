"""`limits.sweep_hours`, by the command: the sweep ends itself, and resumes with more hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.slow

HOURS = "limits.sweep_hours"


def space(folder: Path, **sections: Any) -> Path:
    value = tiny_sweep.mapping(str(make_llama(folder / "model")), scheduler="none", **sections)
    return tiny_sweep.write_space(folder / "tiny.yaml", value)


def test_running_trials_are_saved_and_end_when_the_hours_are_over(tmp_path: Path) -> None:
    endless = {"train_examples": 1_000_000, "eval_examples": 4, "seed": 3}
    file = space(tmp_path, budget=endless)
    ended = tiny_sweep.sweep(file, tmp_path / "runs", "--set", f"{HOURS}=0.02")
    assert ended.returncode == 1, ended.stderr  # no trial finished
    assert f"{HOURS}: the 0.02 hours of this sweep are used up" in ended.stdout
    assert f"--set {HOURS}=0.04" in ended.stdout
    run = RunFolder(tmp_path / "runs" / "tiny")
    trained = [trial for trial in run.trials() if (trial.progress() or {}).get("step")]
    assert all(_saved(trial) for trial in trained)
    assert run.report_file.exists()


def test_a_sweep_out_of_hours_shows_its_report_until_it_is_given_more(tmp_path: Path) -> None:
    file, storage = space(tmp_path), tmp_path / "runs"
    assert tiny_sweep.sweep(file, storage, "--trials", "2").returncode == 0
    over = tiny_sweep.sweep(file, storage, "--set", f"{HOURS}=0.001")
    assert over.returncode == 0, over.stderr  # what had finished has
    assert "used up" in over.stdout
    assert _finished(storage) == 2
    again = tiny_sweep.sweep(file, storage, "--set", f"{HOURS}=0.001")
    assert again.returncode == 0
    assert "used up" in again.stdout
    assert "Starting Ray" not in again.stdout
    more = tiny_sweep.sweep(file, storage, "--set", f"{HOURS}=9")
    assert more.returncode == 0
    assert "used up" not in more.stdout
    assert _finished(storage) == 4


def _saved(trial: TrialFolder) -> bool:
    return bool(list(trial.checkpoints_folder.glob("step-*"))) and not trial.done


def _finished(storage: Path) -> int:
    found = tiny_sweep.summaries(storage / "tiny").values()
    return sum(each["role"] == "trial" and each["state"] == "finished" for each in found)
