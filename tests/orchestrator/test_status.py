"""The status of a sweep, read from another shell."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from orchestrator.status import main, read_driver, read_status
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, outcomes
from trainables.run_folder import RunFolder

NOW = time.time()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two of eight trials done, one running for 5 s; done ones took 11 s each."""
    run = new_run(tmp_path / "sweep")
    add_trial(run, right=outcomes(60), rank=2)
    add_trial(run, right=outcomes(9), state="stopped", reason="ASHA", rank=4)
    add_baseline(run, outcomes(3))
    folder = run.trial(new_spec(rank=16).trial_id)
    folder.write_spec(new_spec(rank=16), {})
    progress = {"kind": "progress", "step": 7, "units": 56, "seconds": 5.0, "fraction": 0.0}
    news = {"metrics": {"train_loss": 2.5}, "state": "running", "updated": NOW}
    folder.write_progress(progress | news)
    return run


def hold(run: RunFolder, *, age: float) -> None:
    run.write_text(run.lock_file, json.dumps({"host": "box", "pid": 7, "heartbeat": NOW - age}))


def test_it_counts_and_names_the_best_and_what_runs(run: RunFolder) -> None:
    status = read_status(run, now=NOW)
    assert (status.done, status.wanted) == (2, 8)
    assert [item.knobs["rank"] for item in status.running] == [16]
    assert status.best is not None and status.best.knobs["rank"] == 2
    assert status.eta_seconds == pytest.approx(6 * 11 - 5)


def test_a_driver_lives_while_its_heart_beats(run: RunFolder) -> None:
    assert read_driver(run) is None
    hold(run, age=5)
    driver = read_driver(run, now=NOW)
    assert driver is not None and driver.alive and (driver.host, driver.pid) == ("box", 7)
    hold(run, age=31)
    driver = read_driver(run, now=NOW)
    assert driver is not None and not driver.alive
    run.lock_file.write_text("{")
    assert read_driver(run) is None


def test_the_command_shows_it_and_writes_nothing(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(run, age=3600)
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert main([str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 8 trials are done: 1 finished, 1 stopped, 1 running." in shown
    assert "process 7 on box has been silent" in shown and "--name sweep" in shown
    assert "EmAcc 60.0%" in shown and "2.500" in shown and "small none r16" in shown
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


def test_an_empty_run_has_a_status_and_another_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(new_run(tmp_path / "empty").path)]) == 0
    assert "no trials" in capsys.readouterr().out
    assert main([str(tmp_path / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err
