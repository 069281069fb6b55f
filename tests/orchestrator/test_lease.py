"""Specification of the lease: one driver per sweep, and a dead one holds nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import lease
from orchestrator.lease import Lease, is_alive, read_lease
from tests.conftest import REPOSITORY
from trainables.errors import InputError
from trainables.run_folder import RunFolder

RACER = """
import sys, time
from pathlib import Path
from orchestrator.lease import Lease
from trainables.errors import InputError
from trainables.run_folder import RunFolder
folder, start = Path(sys.argv[1]), float(sys.argv[2])
time.sleep(max(0, start - time.time()))
try:
    with Lease(RunFolder(folder)):
        print("held", flush=True)
        time.sleep(1)
except InputError:
    print("refused")
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def leave(run: RunFolder, **holder: Any) -> None:
    """A lease as another driver would have left it."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": time.time()}
    run.path.mkdir(parents=True, exist_ok=True)
    run.lock_file.write_text(json.dumps({**own, **holder}))


def dead_process() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return int(done.stdout)


def test_the_holder_is_named_to_a_second_driver(run: RunFolder) -> None:
    with Lease(run), pytest.raises(InputError) as refused:
        Lease(run).__enter__()
    (message,) = refused.value.messages
    assert f"process {os.getpid()} on {socket.gethostname()} is running this sweep" in message
    assert f"orchestrator.status {run.path}" in message
    assert "--name" in message


def test_a_refused_driver_leaves_the_lease_as_it_is(run: RunFolder) -> None:
    with Lease(run):
        before = run.lock_file.read_text()
        with pytest.raises(InputError):
            Lease(run).__enter__()
        assert run.lock_file.read_text() == before
        assert [*run.path.iterdir()] == [run.lock_file]


def test_it_is_given_back_at_the_end_whatever_happened(run: RunFolder) -> None:
    with pytest.raises(RuntimeError), Lease(run):
        raise RuntimeError
    assert not run.lock_file.exists()
    with Lease(run):
        assert run.lock_file.exists()


@pytest.mark.parametrize(
    "holder",
    [
        {"heartbeat": time.time() - 3600},
        {"heartbeat": time.time() - 3600, "host": "another-host"},
    ],
)
def test_one_whose_heart_has_stopped_is_taken_over(run: RunFolder, holder: Any) -> None:
    leave(run, **holder)
    with Lease(run):
        taken = read_lease(run.lock_file)
        assert taken is not None and is_alive(taken)


def test_one_whose_process_is_gone_is_taken_over_at_once(run: RunFolder) -> None:
    leave(run, pid=dead_process())
    with Lease(run):
        assert [*run.path.iterdir()] == [run.lock_file]


def test_a_driver_on_another_host_is_believed_while_its_heart_beats(run: RunFolder) -> None:
    leave(run, host="another-host", pid=dead_process())
    with pytest.raises(InputError, match="on another-host is running"):
        Lease(run).__enter__()


def test_one_that_is_just_being_written_is_respected(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    run.lock_file.write_text("")
    with pytest.raises(InputError):
        Lease(run).__enter__()


def test_one_that_was_never_written_to_its_end_is_taken_over(run: RunFolder) -> None:
    run.path.mkdir(parents=True)
    run.lock_file.write_text('{"host": "')
    long_ago = time.time() - 3600
    os.utime(run.lock_file, (long_ago, long_ago))
    with Lease(run):
        assert read_lease(run.lock_file) is not None


def test_the_heart_beats(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(run):
        first = read_lease(run.lock_file)
        assert first is not None
        deadline = time.monotonic() + 10
        while read_lease(run.lock_file) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lease(run.lock_file) != first


@pytest.mark.parametrize("stale", [True, False])
def test_of_drivers_that_race_one_wins(run: RunFolder, stale: bool) -> None:
    if stale:
        leave(run, pid=dead_process())
    start = str(time.time() + 1.0)
    command = [sys.executable, "-c", RACER, str(run.path), start]
    racers = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert sorted(said) == ["held", *["refused"] * 3]
