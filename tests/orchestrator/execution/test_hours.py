"""`limits.sweep_hours`, by the command: running trials are saved, and the sweep ends itself.

A sweep that is out of hours, and gets more: tests/test_end_to_end.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

pytestmark = pytest.mark.slow

HOURS = "limits.sweep_hours"
AN_HOUR_PASSES = """
import functools, sys, time
from pathlib import Path
from orchestrator.execution import driver
from orchestrator.sweep import main
from trainables.storage.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
def now():
    '''The time, an hour later once a trial has trained.'''
    has_trained = any((trial.progress() or {}).get("step") for trial in run.trials())
    return time.monotonic() + 3600 * has_trained
driver.SweepClock = functools.partial(driver.SweepClock, now=now)
sys.exit(main(sys.argv[2:]))
"""


def test_running_trials_are_saved_and_end_when_the_hours_are_over(tmp_path: Path) -> None:
    ended = _swept_while_an_hour_passes(_endless(tmp_path), tmp_path / "runs")
    assert ended.returncode == 1, ended.stderr  # no trial finished
    assert f"{HOURS}: the 0.9 hours of this sweep are used up" in ended.stdout
    assert f"--set {HOURS}=1.8" in ended.stdout
    run = RunFolder(tmp_path / "runs" / "tiny")
    trained = [trial for trial in run.trials() if (trial.progress() or {}).get("step")]
    assert trained and all(_saved(trial) for trial in trained)
    assert run.report_file.exists(), ended.stdout + ended.stderr


def _endless(folder: Path) -> Path:
    """A space whose trials train for hours."""
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        scheduler="none",
        budget={"train_examples": 1_000_000, "eval_examples": 4, "seed": 3},
    )
    return tiny_sweep.write_space(folder / "tiny.yaml", value)


def _swept_while_an_hour_passes(space: Path, storage: Path) -> subprocess.CompletedProcess[str]:
    python, _, _, *arguments = tiny_sweep.command(space, storage, "--set", f"{HOURS}=0.9")
    return subprocess.run(
        [python, "-c", AN_HOUR_PASSES, str(storage / space.stem), *arguments],
        cwd=tiny_sweep.REPOSITORY,
        env=tiny_sweep.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _saved(trial: TrialFolder) -> bool:
    return bool(list(trial.checkpoints_folder.glob("step-*"))) and not trial.done
