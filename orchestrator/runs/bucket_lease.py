"""The lease of a sweep whose truth lies in a bucket: one driver, wherever the others are.

As `orchestrator.runs.lease`: the same file with the same content, and the same rule for taking it
over.
But it is an object, created if it is absent and beaten into only while it is the version that this
driver has put last, so of two that find a dead one a single one gets it, and a holder that was
taken over is refused by the bucket itself.

A lease that was given back is left empty: an object can't be deleted on a condition.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from orchestrator.runs import lease, lease_holder
from orchestrator.runs.lease import LeaseLostError
from orchestrator.runs.lease_holder import holder_text, is_alive_here, parsed
from trainables.errors import InputError
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

SHORT_TIMEOUTS = Timeouts(
    retry_seconds=8.0, request_seconds=8.0
)  # together less than two heartbeats
SECONDS_BETWEEN_TRIES = 1.0
Result = TypeVar("Result")
READER_SECONDS = 30.0  # what a reader of this machine is given to finish fetching
READER_PATIENCE = 1.0  # until it takes a driver to be there
_USED = ".used"  # locked while a driver, or a reader that fetches, uses the working copy
_LOOKS_PER_BEAT = 20


class LeaseInBucket:
    """`with LeaseInBucket(run):` as `orchestrator.runs.lease.Lease`; `run` has a mirror.

    The working copy is what the bucket holds once this is entered, and another process of this
    machine that only reads leaves it alone meanwhile.
    """

    def __init__(self, run: RunFolder, *, notify: Callable[[str], None] = print) -> None:
        assert run.mirror is not None
        self._mirror: Mirror = run.mirror
        store = LeaseGuardedStore(self._mirror.store, self.check)
        self.run = replace(run, guard=self.check, mirror=replace(self._mirror, store=store))
        self._key = run.lock_file.name
        self._say = notify
        self._nonce = uuid.uuid4().hex
        self._taken = time.time()
        self._tag: Tag | None = None
        self._fresh_until = (0.0, 0.0)
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> LeaseInBucket:
        """Holds the sweep from here on; raises InputError where another driver does, and
        StorageError."""
        found = self._mirror.store.get(self._key)
        if found is not None and found.content and self._is_held(found):
            raise InputError(self._held_by(found.content))
        began = _now()
        tag = self._claim(found)
        if tag is None:
            now = self._mirror.store.get(self._key)
            raise InputError(self._held_by(now.content if now is not None else b""))
        self._tag, self._fresh_until = tag, _in(began, lease_holder.HEARTBEAT_SECONDS)
        self._heart.start()
        try:
            self._held.enter_context(using(self.run.path, seconds=READER_SECONDS))
            remove_temporary_files(self.run.path)
            self.run.pull(prune=True)
            self._keep_here()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave()
        except KeyboardInterrupt:  # from our own heart, which has just found the lease lost
            self._leave()
        finally:
            self._held.close()

    def check(self) -> None:
        """Raises LeaseLostError if another driver has the sweep by now.

        Nobody can have it within a heartbeat of our last one, for which no request is made.
        """
        if _is_before(self._fresh_until):
            return
        if not self._is_ours():
            raise LeaseLostError(
                f"{self.run.place}: this driver was silent for too long (paused, or cut off from "
                f"its bucket), and {self._holder()} has taken the sweep over. This one has stopped "
                "and writes nothing more."
            )

    def _claim(self, found: Stored | None) -> Tag | None:
        """Of several at once one gets it."""
        store, own = self._mirror.store, self._content()
        if found is None:
            return store.put_if_absent(self._key, own)
        return store.replace(self._key, own, tag=found.tag)

    def _leave(self) -> None:
        """Gives the lease back; raises LeaseLostError if it is another driver's."""
        self._over.set()
        self._heart.join()
        self._fresh_until = (0.0, 0.0)
        self.check()
        if self._tag is not None:
            self._mirror.store.replace(self._key, b"", tag=self._tag)
        self.run.lock_file.unlink(missing_ok=True)

    def _is_held(self, found: Stored) -> bool:
        """Whether a driver at work has put this version."""
        known = is_alive_here(parsed(found.content))
        if known is not None:
            return known
        seconds = lease_holder.HEARTBEAT_SECONDS * lease_holder.MISSED_BEATS_ALLOWED
        self._say(
            f"{holder_text(parsed(found.content))} held this sweep: waiting up to {seconds:.0f} s "
            "for a sign of life from it ..."
        )
        for _ in range(lease_holder.MISSED_BEATS_ALLOWED * _LOOKS_PER_BEAT):
            time.sleep(lease_holder.HEARTBEAT_SECONDS / _LOOKS_PER_BEAT)
            now = self._mirror.store.get(self._key)
            if now is None or now.tag != found.tag:
                return now is not None and bool(now.content)
        return False

    def _beat(self) -> None:
        while not self._over.wait(lease_holder.HEARTBEAT_SECONDS):
            try:
                self._renew()
            except LeaseLostError:
                if not self._over.is_set():
                    os.kill(os.getpid(), signal.SIGINT)
                return
            except OSError:
                continue  # a bucket that is away for a while

    def _renew(self) -> None:
        began, own = _now(), self._content()
        assert self._tag is not None
        tag = self._mirror.store.replace(self._key, own, tag=self._tag)
        if tag is None:  # another's, or one of ours whose answer was lost
            self._fresh_until = (0.0, 0.0)
            self.check()
            return
        self._tag, self._fresh_until = tag, _in(began, lease_holder.HEARTBEAT_SECONDS)
        self._keep_here()

    def _is_ours(self) -> bool:
        found = self._mirror.store.get(self._key)
        is_ours = found is not None and self._nonce in (parsed(found.content) or {}).values()
        if is_ours and found is not None:
            self._tag = found.tag
        return is_ours

    def _content(self) -> bytes:
        return json.dumps(lease_holder.own_lease(nonce=self._nonce, taken=self._taken)).encode()

    def _keep_here(self) -> None:
        """For who looks at the working copy on this machine (orchestrator.status)."""
        with contextlib.suppress(StorageError):
            write_bytes(self.run.lock_file, self._content())

    def _holder(self) -> str:
        found = self._mirror.store.get(self._key)
        return holder_text(parsed(found.content) if found is not None else None)

    def _held_by(self, content: bytes) -> str:
        return lease_holder.held_by(self.run.place, parsed(content))


class LeaseGuardedStore:
    """A bucket that is written only while a lease is held.

    A try to write is over before another driver may have begun: it starts within a heartbeat of the
    lease's last one and takes less than the two that are left. After each that failed the lease is
    asked again.
    """

    def __init__(self, store: ObjectStore, check: Callable[[], None]) -> None:
        self._store = store
        self._hasty = store.with_timeouts(SHORT_TIMEOUTS)
        self._check = check

    @property
    def place(self) -> str:
        return self._store.place

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        return self._tried(lambda: self._hasty.put(key, content, written_ns=written_ns))

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        return self._tried(lambda: self._hasty.put_if_absent(key, content))

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        return self._tried(lambda: self._hasty.replace(key, content, tag=tag))

    def with_timeouts(self, patience: Timeouts) -> ObjectStore:
        return self

    def get(self, key: str) -> Stored | None:
        return self._store.get(key)

    def download(self, key: str, file: Path) -> bool:
        return self._store.download(key, file)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        return self._store.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        self._tried(lambda: self._hasty.delete(wanted))

    def _tried(self, write: Callable[[], Result]) -> Result:
        end = time.monotonic() + LONG_TIMEOUTS.retry_seconds
        while True:
            self._check()
            try:
                return write()
            except StorageError:
                if time.monotonic() >= end:
                    raise
                time.sleep(SECONDS_BETWEEN_TRIES)


def lease_of(
    run: RunFolder, *, notify: Callable[[str], None] = print
) -> lease.Lease | LeaseInBucket:
    """The lease of a run, whichever storage it lies on."""
    return (
        lease.Lease(run, notify=notify) if run.mirror is None else LeaseInBucket(run, notify=notify)
    )


def fetch(run: RunFolder) -> None:
    """Makes the working copy of a run in a bucket what lies there, unless a driver of this machine
    keeps it so by itself. Raises StorageError. Nothing happens to a folder on a disk."""
    if run.mirror is None:
        return
    with using(run.path, seconds=READER_PATIENCE) as is_free:
        if is_free:
            run.pull()


@contextmanager
def using(folder: Path, *, seconds: float) -> Iterator[bool]:
    """Keeps this machine's other processes from fetching into a working copy; whether it could
    within so many seconds. A process that ends, however, keeps nobody out any more."""
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
    """Two clocks: one that nobody sets and that counts a machine's sleep, and the wall's, which
    counts the time that a virtual machine was held."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)), time.time()


def _in(began: tuple[float, float], seconds: float) -> tuple[float, float]:
    return began[0] + seconds, began[1] + seconds


def _is_before(end: tuple[float, float]) -> bool:
    now = _now()
    return now[0] < end[0] and now[1] < end[1]
