"""The lease of a sweep in a bucket, and the store that only its holder writes to."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

from orchestrator.runs import lease_holder
from orchestrator.runs.lease import HeartbeatLease, Lease
from orchestrator.runs.lease_holder import parsed
from trainables.storage.atomic_files import remove_temporary_files, write_bytes
from trainables.storage.errors import StorageError
from trainables.storage.mirror import Mirror
from trainables.storage.object_store import (
    LONG_TIMEOUTS,
    Listed,
    ObjectStore,
    Stored,
    Tag,
    Timeouts,
)
from trainables.storage.run_folder import RunFolder

SHORT_TIMEOUTS = Timeouts(retry_seconds=8.0, request_seconds=8.0)  # together < two heartbeats
SECONDS_BETWEEN_TRIES = 1.0
READER_SECONDS = 30.0  # that a driver waits for a reader of this machine to finish fetching
DRIVER_SECONDS = 1.0  # that a reader waits for the working copy: longer, and a driver uses it
Result = TypeVar("Result")
_USED = ".used"  # locked while a driver, or a reader that fetches, uses the working copy


class LeaseInBucket(HeartbeatLease):
    """The lease of a run in a bucket; `run` has a mirror.

    It is an object, created if it is absent and replaced only while it is the version that this
    driver has written last. So of several drivers that find a dead lease one gets it, and the
    bucket itself refuses a holder that was taken over. A lease that was given back is empty: an
    object can't be deleted on a condition.

    Once it is entered, the working copy holds what the bucket does, and no other process of this
    machine that only reads changes it.
    """

    def __init__(self, run: RunFolder, *, notify: Callable[[str], None] = print) -> None:
        assert run.mirror is not None
        super().__init__(run.place, "bucket", notify=notify)
        self._mirror: Mirror = run.mirror
        store = LeaseGuardedStore(self._mirror.store, self.check)
        self.run = replace(run, guard=self.check, mirror=replace(self._mirror, store=store))
        self._key = run.lock_file.name
        self._tag: Tag | None = None
        self._fresh_until = (0.0, 0.0)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Holds the sweep from here on; raises InputError where another driver does, and
        StorageError."""
        found = self._mirror.store.get(self._key)
        if found is not None and self._is_held(found):
            raise self._refusal(found.content)
        began = _now()
        tag = self._claim(found)
        if tag is None:
            raise self._refusal(self._content())
        self._trust(tag, since=began)
        self._heart.start()
        try:
            self._held.enter_context(using(self.run.path, seconds=READER_SECONDS))
            remove_temporary_files(self.run.path)
            self.run.pull(prune=True)
            self._copy_to_disk()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken the sweep over.

        Within a heartbeat of the last renewal none can have: then no request is made.
        """
        if not _is_before(self._fresh_until):
            self._require_ours()

    def _content(self) -> bytes | None:
        found = self._mirror.store.get(self._key)
        return None if found is None else found.content

    def _is_held(self, found: Stored) -> bool:
        """Whether a driver at work wrote this version; an empty one was given back."""
        return bool(found.content) and self._is_alive(found.content, lambda: self._renewed(found))

    def _renewed(self, before: Stored) -> bool | None:
        now = self._mirror.store.get(self._key)
        if now is not None and now.tag == before.tag:
            return None
        return now is not None and bool(now.content)

    def _claim(self, found: Stored | None) -> Tag | None:
        """The version written, or None if another driver was faster."""
        if found is None:
            return self._mirror.store.put_if_absent(self._key, self._own_content())
        return self._mirror.store.replace(self._key, self._own_content(), tag=found.tag)

    def _trust(self, tag: Tag, *, since: tuple[float, float]) -> None:
        """No other driver can take the lease within a heartbeat of this version's request."""
        seconds = lease_holder.HEARTBEAT_SECONDS
        self._tag, self._fresh_until = tag, (since[0] + seconds, since[1] + seconds)

    def _require_ours(self) -> None:
        self._fresh_until = (0.0, 0.0)
        super()._require_ours()

    def _renew(self) -> None:
        began = _now()
        assert self._tag is not None
        tag = self._mirror.store.replace(self._key, self._own_content(), tag=self._tag)
        if tag is None:  # another driver's version, or ours of a request whose answer was lost
            self._require_ours()
            return
        self._trust(tag, since=began)
        self._copy_to_disk()

    def _is_ours(self) -> bool:
        found = self._mirror.store.get(self._key)
        is_ours = found is not None and self._nonce in (parsed(found.content) or {}).values()
        if is_ours and found is not None:
            self._tag = found.tag
        return is_ours

    def _copy_to_disk(self) -> None:
        """Writes the lease to the working copy, where `orchestrator.status` looks for it."""
        with contextlib.suppress(StorageError):
            write_bytes(self.run.lock_file, self._own_content())

    def _give_back(self) -> None:
        if self._tag is not None:
            self._mirror.store.replace(self._key, b"", tag=self._tag)
        self.run.lock_file.unlink(missing_ok=True)

    def _close(self) -> None:
        self._held.close()


class LeaseGuardedStore:
    """A store that writes only while a lease is held.

    An attempt to write ends before another driver can have taken the lease: it starts within a
    heartbeat of the last one and takes less than the two heartbeats that are left. The lease is
    checked again before each further attempt.
    """

    def __init__(self, store: ObjectStore, check: Callable[[], None]) -> None:
        self._store = store
        self._impatient = store.with_timeouts(SHORT_TIMEOUTS)
        self._check = check

    @property
    def place(self) -> str:
        return self._store.place

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        return self._attempt(lambda: self._impatient.put(key, content, written_ns=written_ns))

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        return self._attempt(lambda: self._impatient.put_if_absent(key, content))

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        return self._attempt(lambda: self._impatient.replace(key, content, tag=tag))

    def with_timeouts(self, timeouts: Timeouts) -> ObjectStore:
        return self

    def get(self, key: str) -> Stored | None:
        return self._store.get(key)

    def download(self, key: str, file: Path) -> bool:
        return self._store.download(key, file)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        return self._store.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        self._attempt(lambda: self._impatient.delete(wanted))

    def _attempt(self, write: Callable[[], Result]) -> Result:
        end = time.monotonic() + LONG_TIMEOUTS.retry_seconds
        while True:
            self._check()
            try:
                return write()
            except StorageError:
                if time.monotonic() >= end:
                    raise
                time.sleep(SECONDS_BETWEEN_TRIES)


def lease_of(run: RunFolder, *, notify: Callable[[str], None] = print) -> Lease | LeaseInBucket:
    """The lease of a run: an object if it lies in a bucket, else a file."""
    return Lease(run, notify=notify) if run.mirror is None else LeaseInBucket(run, notify=notify)


def fetch(run: RunFolder) -> None:
    """Fetches what a run's bucket holds into its working copy, unless a driver of this machine
    does so already. Raises StorageError. A run folder on a disk is left as it is."""
    if run.mirror is None:
        return
    with using(run.path, seconds=DRIVER_SECONDS) as is_free:
        if is_free:
            run.pull()


@contextmanager
def using(folder: Path, *, seconds: float) -> Iterator[bool]:
    """Locks a working copy against other processes of this machine that fetch into it.

    Yields whether the lock was obtained within so many seconds. It ends with the process.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    end = time.monotonic() + seconds
    with (folder / _USED).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    yield False
                    return
                time.sleep(0.05)
            else:
                yield True
                return


def _now() -> tuple[float, float]:
    """BOOTTIME, which nobody sets and which includes suspend, and wall time, which also advances
    while a virtual machine is paused."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)), time.time()


def _is_before(end: tuple[float, float]) -> bool:
    now = _now()
    return now[0] < end[0] and now[1] < end[1]
