"""The watchdog: a live trial sends heartbeats, and a hanging one logs where its threads are."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from trainables.errors import Interrupted
from trainables.storage.trial_folder import TrialFolder
from trainables.workers import heartbeat as watch_module
from trainables.workers.heartbeat import Watchdog


def watch(folder: TrialFolder, *, silent_seconds: float | None = None) -> Watchdog:
    return Watchdog(folder, interrupted=threading.Event(), silent_seconds=silent_seconds)


@pytest.fixture
def folder(tmp_path: Path) -> TrialFolder:
    (tmp_path / "trial").mkdir()
    return TrialFolder(tmp_path / "trial")


def test_a_heartbeat_keeps_what_the_last_event_said(
    folder: TrialFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_progress({"kind": "rung", "step": 3, "state": "running", "updated": 1.0})
    watch(folder).beat()
    assert (folder.progress() or {})["updated"] == 1.0  # not more often than it is of use
    monkeypatch.setattr(watch_module, "HEARTBEAT_SECONDS", 0.0)
    watch(folder).beat()
    progress = folder.progress() or {}
    assert (progress["kind"], progress["step"], progress["state"]) == ("rung", 3, "running")
    assert time.time() - progress["updated"] < 60


def test_a_heart_beats_often_enough_for_the_silence_that_is_allowed(folder: TrialFolder) -> None:
    beating = watch(folder, silent_seconds=0.2)
    until = time.monotonic() + 0.4
    seen = set()
    while time.monotonic() < until:
        beating.beat()
        seen.add((folder.progress() or {}).get("updated"))
    assert len(seen) >= 4


def test_whoever_is_interrupted_is_told_at_the_next_beat(folder: TrialFolder) -> None:
    asked = threading.Event()
    beating = Watchdog(folder, interrupted=asked)
    beating.beat()
    asked.set()
    with pytest.raises(Interrupted):
        beating.beat()


def test_where_a_trial_hangs_is_in_its_log(folder: TrialFolder) -> None:
    folder.append_log("step 3")

    def hangs_here() -> None:
        time.sleep(0.5)

    with watch(folder, silent_seconds=0.25).guard():
        hangs_here()
    log = folder.log_file.read_text()
    assert log.startswith("step 3")
    assert "Timeout" in log
    assert "hangs_here" in log


def test_what_takes_its_time_and_lives_is_no_hang(folder: TrialFolder) -> None:
    living = watch(folder, silent_seconds=0.6)
    until = time.monotonic() + 1.2
    with living.guard():
        while time.monotonic() < until:
            living.beat()
            time.sleep(0.02)
    time.sleep(0.6)
    assert folder.log_file.read_text() == ""


def test_loading_a_base_is_given_longer(folder: TrialFolder) -> None:
    with watch(folder, silent_seconds=0.1).guard(factor=10):
        time.sleep(0.3)
    assert folder.log_file.read_text() == ""
