"""The lease in a bucket: one driver per sweep, across machines."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.runs import lease_holder
from orchestrator.runs.bucket_lease import LeaseInBucket, fetch, lease_of, using
from orchestrator.runs.lease import Lease, LeaseLostError
from orchestrator.runs.lease_holder import own_lease, read_lease
from trainables.errors import InputError
from trainables.storage.bucket_store import BucketStore
from trainables.storage.errors import StorageError
from trainables.storage.mirror import Mirror
from trainables.storage.object_store import ObjectStore, Tag, Timeouts
from trainables.storage.run_folder import RunFolder

LOCK = "driver.lock"


@pytest.fixture
def store() -> ObjectStore:
    from obstore.store import MemoryStore

    return BucketStore("memory://sweeps/one", MemoryStore())


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> RunFolder:
    return machine(store, tmp_path / "here")


@pytest.fixture(autouse=True)
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_holder, "HEARTBEAT_SECONDS", 0.1)


def machine(store: ObjectStore, disk: Path) -> RunFolder:
    """The run as another machine has it: another disk, one bucket."""
    return RunFolder(disk / "one", mirror=Mirror(disk / "one", store))


def elsewhere(**changes: Any) -> bytes:
    """The lease of a driver on another host."""
    return json.dumps({**own_lease(nonce="theirs", taken=1.0), "host": "far", **changes}).encode()


class Stuck:
    """A store of which a try to write ends late, as a server's that answers no more."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.tries = 0

    def with_timeouts(self, patience: Timeouts) -> Stuck:
        assert patience.retry_seconds + patience.request_seconds < 20.0 - 2.0
        return self

    def put(self, key: str, *content: Any, **more: Any) -> Tag:
        self.tries += 1
        if self.tries == 1:
            self._store.put(LOCK, elsewhere())  # meanwhile the sweep is taken over
        raise StorageError(f"{key}: can't be written (no answer)")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_a_write_that_is_tried_again_asks_for_the_lease_again(
    run: RunFolder, store: ObjectStore, interrupts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.runs.bucket_lease.SECONDS_BETWEEN_TRIES", 0.2)
    stuck = Stuck(store)
    stalled = RunFolder(run.path, mirror=Mirror(run.path, cast(ObjectStore, stuck)))

    def drive() -> None:
        with LeaseInBucket(stalled) as held, pytest.raises(LeaseLostError):
            held.run.write_text(held.run.report_file, "late")

    with pytest.raises(LeaseLostError):
        drive()
    assert stuck.tries == 1
    assert store.get("report.md") is None


class Together:
    """A store whose first writers all have read before the first of them writes."""

    def __init__(self, store: ObjectStore, writers: int) -> None:
        self._store = store
        self._arrived = threading.Barrier(writers)
        self._have_met = threading.Event()

    def __getattr__(self, name: str) -> Any:
        if name in ("put", "put_if_absent", "replace") and not self._have_met.is_set():
            self._arrived.wait(10)
            self._have_met.set()
        return getattr(self._store, name)


def holder(store: ObjectStore) -> dict[str, Any]:
    found = store.get(LOCK)
    assert found is not None
    return dict(json.loads(found.content))


@pytest.fixture
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C as a heart sends it, without breaking off the test."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    yield heard
    signal.signal(signal.SIGINT, before)


def test_a_run_in_a_bucket_gets_this_lease_and_a_folder_the_other(
    run: RunFolder, tmp_path: Path
) -> None:
    assert isinstance(lease_of(run), LeaseInBucket)
    assert isinstance(lease_of(RunFolder(tmp_path)), Lease)


def test_a_second_driver_is_refused_and_told_who_holds_it(
    run: RunFolder, store: ObjectStore, tmp_path: Path
) -> None:
    with LeaseInBucket(run), pytest.raises(InputError) as refused:
        LeaseInBucket(machine(store, tmp_path / "there")).__enter__()
    told = str(refused.value)
    assert f"on {socket.gethostname()} is running this sweep since" in told
    assert "python -m orchestrator.status memory://sweeps/one" in told


def test_it_is_free_again_once_it_was_given_back(run: RunFolder) -> None:
    for _ in range(2):
        with LeaseInBucket(run) as held:
            assert read_lease(run.lock_file) is not None
            held.check()
        assert read_lease(run.lock_file) is None


def test_one_whose_process_is_gone_is_taken_over_at_once(
    run: RunFolder, store: ObjectStore
) -> None:
    dead = {**own_lease(nonce="dead", taken=1.0), "pid": 2**22 - 3}
    store.put(LOCK, json.dumps(dead).encode())
    began = time.monotonic()
    with LeaseInBucket(run) as held:
        held.check()
    assert time.monotonic() - began < 5


def test_one_of_another_host_is_watched_by_our_own_clock_and_taken_over(
    run: RunFolder, store: ObjectStore
) -> None:
    store.put(LOCK, elsewhere(heartbeat=time.time() + 3600))  # its clock says it has just beaten
    said: list[str] = []
    with LeaseInBucket(run, notify=said.append):
        assert holder(store)["nonce"] != "theirs"
    assert "waiting up to" in said[0]
    assert "on far" in said[0]


def test_one_of_another_host_that_beats_is_left_alone(run: RunFolder, store: ObjectStore) -> None:
    store.put(LOCK, elsewhere(heartbeat=0.0))  # its clock is years behind
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.05):
            store.put(LOCK, elsewhere(heartbeat=time.monotonic()))

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(InputError, match="on far is running this sweep"):
            LeaseInBucket(run, notify=lambda text: None).__enter__()
    finally:
        over.set()
        heart.join()
    assert holder(store)["nonce"] == "theirs"


@pytest.mark.parametrize("found", [None, b"", elsewhere()], ids=["new", "given back", "dead"])
def test_of_many_drivers_at_once_one_holds_it(
    store: ObjectStore, tmp_path: Path, found: bytes | None
) -> None:
    if found is not None:
        store.put(LOCK, found)
    over, held = threading.Event(), list[int]()
    together = cast("ObjectStore", Together(store, 6))

    def drive(number: int) -> bool:
        own = LeaseInBucket(machine(together, tmp_path / str(number)), notify=lambda text: None)
        try:
            with own:
                held.append(number)
                over.wait(5)
            return True
        except InputError:
            return False

    with ThreadPoolExecutor(6) as pool:
        racing = [pool.submit(drive, number) for number in range(6)]
        while sum(each.done() for each in racing) < 5:
            time.sleep(0.01)
        over.set()
    assert sum(each.result() for each in racing) == 1
    assert len(held) == 1  # not even for a moment


def test_a_holder_that_was_taken_over_is_interrupted_and_writes_nothing_more(
    run: RunFolder, store: ObjectStore, interrupts: list[int]
) -> None:
    def drive() -> None:
        with LeaseInBucket(run) as held:
            held.run.write_text(held.run.report_file, "ours")
            store.put(LOCK, elsewhere())
            end = time.monotonic() + 10
            while not interrupts and time.monotonic() < end:
                time.sleep(0.01)
            with pytest.raises(LeaseLostError):
                held.run.write_text(held.run.report_file, "still ours?")

    with pytest.raises(LeaseLostError, match="on far has taken the sweep over"):
        drive()
    assert interrupts == [signal.SIGINT]
    found = store.get("report.md")
    assert found is not None
    assert found.content == b"ours"
    assert holder(store)["nonce"] == "theirs"


def test_a_paused_holder_asks_the_bucket_before_it_writes_again(
    run: RunFolder, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lease_holder, "HEARTBEAT_SECONDS", 60.0
    )  # its heart does not beat meanwhile
    held = LeaseInBucket(run).__enter__()
    store.put(LOCK, elsewhere())
    held.check()  # nobody waits less than three heartbeats, and this is within the first
    monkeypatch.setattr("orchestrator.runs.bucket_lease._now", lambda: (1e12, 1e12))
    with pytest.raises(LeaseLostError):
        held.check()
    held._over.set()
    held._held.close()


def test_a_beat_whose_answer_was_lost_is_known_again(run: RunFolder, store: ObjectStore) -> None:
    with LeaseInBucket(run) as held:
        mine = holder(store)
        store.put(LOCK, json.dumps({**mine, "heartbeat": 1.0}).encode())  # ours, unknown version
        time.sleep(0.3)
        held.check()
        assert holder(store)["heartbeat"] > 1.0


def test_what_another_machine_wrote_is_here_once_it_is_held_and_what_was_not_published_is_gone(
    run: RunFolder, store: ObjectStore, tmp_path: Path
) -> None:
    there = machine(store, tmp_path / "there")
    there.write_state({"sweep_id": "abc"})
    run.path.mkdir(parents=True)
    lost = run.path / "trials" / "never"
    lost.mkdir(parents=True)
    (lost / "spec.json").write_text("{}")  # killed before it was published
    with LeaseInBucket(run) as held:
        assert (held.run.state() or {})["sweep_id"] == "abc"
        assert not lost.exists()


def test_a_reader_leaves_the_copy_alone_while_a_driver_of_this_machine_keeps_it(
    run: RunFolder, store: ObjectStore, tmp_path: Path
) -> None:
    with LeaseInBucket(run):
        machine(store, tmp_path / "there").write_state({"sweep_id": "newer"})
        fetch(run)
        assert run.state() is None
    fetch(run)
    assert (run.state() or {})["sweep_id"] == "newer"


def test_only_one_process_uses_a_working_copy_at_a_time(tmp_path: Path) -> None:
    with using(tmp_path, seconds=0) as first, using(tmp_path, seconds=0.1) as second:
        assert (first, second) == (True, False)
    with using(tmp_path, seconds=0) as again:
        assert again
