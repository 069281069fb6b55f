"""The status of a sweep, read by another process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.runs.lease_holder import this_place
from orchestrator.status import main, read_driver, read_status
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, outcomes
from trainables.storage.run_folder import RunFolder

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


def hold(
    run: RunFolder, *, age: float, host: str = socket.gethostname(), pid: int = os.getpid()
) -> None:
    beat = {"heartbeat": time.time() - age, "monotonic": max(0.0, time.monotonic() - age)}
    lease = {**this_place(), "host": host, "pid": pid, **beat}
    run.write_text(run.lock_file, json.dumps(lease))


def test_it_counts_and_names_the_best_and_what_runs(run: RunFolder) -> None:
    hold(run, age=1)
    status = read_status(run)
    assert (status.done, status.wanted) == (2, 8)
    assert [item.knobs["rank"] for item in status.running] == [16]
    assert status.best is not None and status.best.knobs["rank"] == 2
    assert status.eta_seconds == pytest.approx(6 * 11 - 5)


def test_a_driver_lives_while_its_heart_beats(run: RunFolder) -> None:
    assert read_driver(run) is None
    hold(run, age=5, host="box", pid=7)
    driver = read_driver(run)
    assert driver is not None and driver.alive and (driver.host, driver.pid) == ("box", 7)
    hold(run, age=31, host="box", pid=7)
    driver = read_driver(run)
    assert driver is not None and not driver.alive
    run.lock_file.write_text("{")
    assert read_driver(run) is None


def test_a_killed_driver_of_this_machine_is_known_to_be_gone_at_once(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        hold(run, age=1, pid=process.pid)
        assert [item.knobs["rank"] for item in read_status(run).running] == [16]
        process.kill()
    status = read_status(run)
    assert status.driver is not None and not status.driver.alive
    assert status.running == []
    main([str(run.path)])
    assert "No driver holds it" in capsys.readouterr().out


def test_a_sweep_whose_space_is_exhausted_has_nothing_to_go_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "sweep")
    add_trial(run, right=outcomes(60))
    run.write_state({"trials_done": 1, "exhausted": True})
    main([str(run.path)])
    shown = capsys.readouterr().out
    assert "1 of 8 trials are done: 1 finished. The space is exhausted" in shown
    assert "To go on" not in shown


def test_the_command_shows_it_and_writes_nothing(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(run, age=3600, host="box", pid=7)
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    assert main([str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "2 of 8 trials are done: 1 finished, 1 stopped, 1 interrupted." in shown
    assert "process 7 on box last said so 1 h 00 min ago" in shown and "--name sweep" in shown
    assert "EmAcc 60.0%" in shown and "small none r16" not in shown
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


def test_the_command_shows_what_runs_while_a_driver_holds_the_sweep(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(run, age=1)
    assert main([str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert "1 finished, 1 stopped, 1 running." in shown and "A driver holds it" in shown
    assert "2.500" in shown and "small none r16" in shown and "--name sweep" not in shown


def test_an_empty_run_has_a_status_and_another_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(new_run(tmp_path / "empty").path)]) == 0
    assert "no trials" in capsys.readouterr().out
    assert main([str(tmp_path / "missing")]) == 2
    assert "no such folder" in capsys.readouterr().err
