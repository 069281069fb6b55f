"""The lease: one driver per sweep, and a dead driver does not keep it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs import lease_holder
from orchestrator.runs.lease import Lease, LeaseLostError
from orchestrator.runs.lease_holder import is_alive, read_lease, this_place
from orchestrator.status import read_driver
from tests.conftest import REPOSITORY
from trainables.errors import InputError
from trainables.storage.errors import StorageError
from trainables.storage.run_folder import RunFolder

RACER = """
import sys
from pathlib import Path
from orchestrator.runs.lease import Lease
from trainables.errors import InputError
from trainables.storage.run_folder import RunFolder
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lease(RunFolder(Path(sys.argv[1])), notify=lambda text: None):
        print("held", flush=True)
        sys.stdin.read()
except InputError:
    print("refused", flush=True)
"""


HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.runs import lease, lease_holder
from trainables.storage.run_folder import RunFolder
lease_holder.HEARTBEAT_SECONDS = float(sys.argv[2])
lease_holder.socket.gethostname = lambda: sys.argv[3]
offset = float(sys.argv[4])
lease_holder.time.time = lambda clock=time.time: clock() + offset
try:
    with lease.Lease(RunFolder(Path(sys.argv[1]))) as held:
        print("held", flush=True)
        while True:
            held.run.write_text(held.run.report_file, "by the holder")
            time.sleep(0.01)
except lease.LeaseLostError as error:
    print(error)
"""


@contextmanager
def holder(
    run: RunFolder, *, beat: float = 0.2, host: str = "", clock_offset: float = 0.0
) -> Iterator[subprocess.Popen[str]]:
    """Another driver, which writes the report all the time."""
    name = host or socket.gethostname()
    command = [sys.executable, "-c", HOLDER, str(run.path), str(beat), name, str(clock_offset)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Heartbeats that a test can wait for; three of them are time enough on a busy machine."""
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 2.0)
    return 0.2


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def leave(run: RunFolder, **holder: Any) -> None:
    """A lease as another driver would have left it."""
    own = {**this_place(), "pid": os.getpid(), "heartbeat": time.time(),
           "monotonic": time.monotonic()}  # fmt: skip
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
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    assert f"{holder} is running this sweep since 20" in message
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
        {"heartbeat": time.time() - 3600, "monotonic": 0.0},  # when the machine started
        {"heartbeat": time.time() + 3600, "monotonic": 0.0},
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


@pytest.mark.parametrize("clock_offset", [0.0, -86400.0, 86400.0])
def test_a_driver_on_another_host_is_believed_while_its_heart_beats(
    run: RunFolder, impatient: float, clock_offset: float
) -> None:
    """Whatever its clock says: only that its file changes counts."""
    with holder(run, beat=impatient, host="another-host", clock_offset=clock_offset):
        said: list[str] = []
        with pytest.raises(InputError, match="on another-host is running"):
            Lease(run, notify=said.append).__enter__()
        (line,) = said
        assert "on another-host held this sweep" in line and "up to 6 s" in line


@pytest.mark.parametrize(
    "elsewhere",
    [{"boot": "another machine of our name"}, {"pids": "pid:[1]"}, {"pids": None}],
)
def test_a_process_that_can_not_be_seen_from_here_is_watched_and_not_called_dead(
    run: RunFolder, impatient: float, elsewhere: dict[str, Any]
) -> None:
    leave(run, pid=dead_process(), **elsewhere)
    beats = threading.Timer(
        1.0, leave, args=[run], kwargs={"pid": 1, "heartbeat": time.time() + 1, **elsewhere}
    )
    beats.start()
    with pytest.raises(InputError, match="is running this sweep"):
        Lease(run, notify=lambda text: None).__enter__()
    beats.join()


def test_a_lease_that_can_not_be_written_is_not_left_behind(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        Lease(run).__enter__()
    assert not run.lock_file.exists()


def test_others_may_read_the_lease_and_not_write_it(run: RunFolder) -> None:
    before = os.umask(0)
    try:
        with Lease(run):
            assert stat.S_IMODE(run.lock_file.stat().st_mode) == 0o644
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"[" * 100_000,
        json.dumps({**this_place(), "pid": None}).encode(),
        json.dumps({**this_place(), "heartbeat": "now"}).encode(),
        json.dumps({**this_place(), "pid": 1, "taken": 1e300}).encode(),
    ],
)
def test_nonsense_in_its_place_stops_nobody(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.1)
    run.path.mkdir(parents=True)
    run.lock_file.write_bytes(nonsense)
    assert read_lease(run.lock_file) is None
    assert read_driver(run) is None
    with Lease(run, notify=lambda text: None):
        assert read_lease(run.lock_file) is not None


@pytest.mark.parametrize("ago", [0.0, 3600.0, -86400.0])
def test_a_driver_on_another_host_is_taken_over_after_three_missed_heartbeats(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, ago: float
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.2)
    leave(run, host="another-host", heartbeat=time.time() - ago)
    began = time.monotonic()
    with Lease(run, notify=lambda text: None):
        assert time.monotonic() - began >= 3 * 0.2
        assert (read_lease(run.lock_file) or {})["pid"] == os.getpid()


def test_one_that_is_just_being_written_is_respected(run: RunFolder, impatient: float) -> None:
    run.path.mkdir(parents=True)
    run.lock_file.write_text("")
    writes = threading.Timer(1.0, leave, args=[run], kwargs={"host": "another-host"})
    writes.start()
    with pytest.raises(InputError, match="on another-host is running"):
        Lease(run, notify=lambda text: None).__enter__()
    writes.join()


def test_one_that_was_never_written_to_its_end_is_taken_over(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.1)
    run.path.mkdir(parents=True)
    run.lock_file.write_text('{"host": "')
    with Lease(run, notify=lambda text: None):
        assert read_lease(run.lock_file) is not None


def test_the_heart_beats(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.01)
    with Lease(run):
        first = read_lease(run.lock_file)
        assert first is not None
        deadline = time.monotonic() + 10
        while read_lease(run.lock_file) == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lease(run.lock_file) != first


def test_a_paused_driver_that_was_taken_over_writes_nothing_more(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.2)
    with holder(run, beat=0.2) as paused:
        paused.send_signal(signal.SIGSTOP)
        time.sleep(4 * 0.2)
        monkeypatch.setattr(
            lease_holder, "HEARTBEAT_SECONDS", 60.0
        )  # a busy machine is no dead one
        monkeypatch.setattr(lease_holder, "_is_fresh", lambda age: False)
        with Lease(run) as ours:
            ours.run.write_text(run.report_file, "by us")
            paused.send_signal(signal.SIGCONT)
            said, _ = paused.communicate(timeout=60)
            assert paused.returncode == 0, "it did not hear of it"
            assert f"process {os.getpid()} on {socket.gethostname()} has taken the sweep" in said
            assert run.report_file.read_text() == "by us"
            assert (read_lease(run.lock_file) or {})["pid"] == os.getpid()
            ours.check()
            assert not [*run.path.glob(".*.part")]


@pytest.fixture(params=["Ctrl-C is heard", "Ctrl-C is ignored"])
def handlers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Those of a driver, which a script may have started in its background."""
    ignored = request.param == "Ctrl-C is ignored"
    wanted = {signal.SIGINT: signal.SIG_IGN if ignored else signal.default_int_handler,
              signal.SIGTERM: signal.default_int_handler}  # fmt: skip
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_driver_that_does_nothing_hears_of_it_at_its_next_heartbeat(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.1)
    with pytest.raises(LeaseLostError), Lease(run):
        run.lock_file.unlink()
        leave(run, host="another-host")
        time.sleep(60)  # interrupted
    assert (read_lease(run.lock_file) or {})["host"] == "another-host"


@pytest.mark.parametrize("stale", [True, False])
def test_of_drivers_that_race_one_wins(run: RunFolder, stale: bool) -> None:
    if stale:
        leave(run, pid=dead_process())
    with ExitStack() as ends:
        racers = [ends.enter_context(racer(run)) for _ in range(4)]
        assert [said(each) for each in racers] == ["ready"] * 4
        for each in racers:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        assert sorted(said(each) for each in racers) == ["held", *["refused"] * 3]


@contextmanager
def racer(run: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """A driver that takes the lease when it is told to, and holds it until its input ends."""
    command = [sys.executable, "-c", RACER, str(run.path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process


def said(process: subprocess.Popen[str]) -> str:
    """The next line of its output."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
