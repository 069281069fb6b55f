"""Lease: one driver per sweep. A second one is refused and told who holds it.

The lease is a file with the holder's host, process and heartbeat. One whose process is gone from
this host, or that has missed three heartbeats, is taken over. Clocks of two hosts are never
compared: a driver on another host is watched until its file changes, by our own clock. Another
host is also one of the same name, and another container on this machine: neither's processes can
be seen from here.

A holder beats into the file that it has opened, never into another one at the same place, and a
taken-over holder learns of it at its next write (`Lease.run`) or heartbeat: it writes nothing more.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from orchestrator.runs import lease_holder
from orchestrator.runs.lease_holder import (
    _content,
    held_by,
    holder_text,
    is_alive_here,
    own_lease,
    parsed,
    read_lease,
)
from trainables.errors import InputError
from trainables.storage.atomic_files import remove_temporary_files
from trainables.storage.errors import storage_errors
from trainables.storage.run_folder import RunFolder

_FILE_BYTES = 512  # always, so that a beat never changes the size
_LOOKS_PER_BEAT = 20
_MOMENT_SECONDS = 0.2


class LeaseLostError(InputError):
    """Another driver has taken the sweep over."""


class Lease:
    """`with Lease(run):` holds the sweep; raises InputError where another driver does.

    Whoever finds a lease of another host may wait for three heartbeats, and `notify`s so. A holder
    that is taken over is interrupted as if by Ctrl-C, and its writes raise LeaseLostError.
    """

    def __init__(self, run: RunFolder, *, notify: Callable[[str], None] = print) -> None:
        self.run = replace(run, guard=self.check)
        self._file = run.lock_file
        self._say = notify
        self._nonce = uuid.uuid4().hex
        self._taken = time.time()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Holds the sweep from here on; no file of another driver comes to its place any more.

        Raises StorageError where the lease can't be written, and leaves none then.
        """
        with storage_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if self._is_held():
                raise InputError(self._refusal())
            self._take_away_stale()
            self._claim()
            self._begin()
        self._heart.start()
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
            if self._file.exists():
                self._leave()
        finally:
            os.close(self._descriptor)

    def check(self) -> None:
        """Raises LeaseLostError if another driver has the sweep by now."""
        if not self._is_ours():
            raise LeaseLostError(
                f"{self._file.parent}: this driver was silent for too long (paused, or cut off "
                f"from its disk), and {self._holder()} has taken the sweep over. "
                "This one has stopped and writes nothing more."
            )

    def _leave(self) -> None:
        """Gives the lease back; raises LeaseLostError if it is another driver's."""
        self._over.set()
        self._heart.join()
        self.check()
        with storage_errors(self._file):
            self._file.unlink(missing_ok=True)

    def _is_held(self) -> bool:
        """Whether a driver at work wrote the lease, or is just writing it."""
        self._judged = before = _content(self._file)
        if before is None:
            return False
        known = is_alive_here(parsed(before))
        if known is not None:
            return known
        seconds = lease_holder.HEARTBEAT_SECONDS * lease_holder.MISSED_BEATS_ALLOWED
        self._say(
            f"{self._holder()} held this sweep: waiting up to {seconds:.0f} s for a sign of life "
            "from it ..."
        )
        return _changes(self._file, before)

    def _take_away_stale(self) -> None:
        """Moves the file aside before it goes: it may have become another driver's meanwhile."""
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}.stale")
        try:
            self._file.replace(aside)
        except FileNotFoundError:
            return
        if _content(aside) != self._judged:
            aside.replace(self._file)
            raise InputError(self._refusal())
        aside.unlink()

    def _refusal(self) -> str:
        return held_by(str(self._file.parent), read_lease(self._file))

    def _holder(self) -> str:
        return holder_text(read_lease(self._file))

    def _claim(self) -> None:
        """Creates the file if and only if nobody else has just done so."""
        try:
            self._descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            raise InputError(self._refusal()) from None

    def _begin(self) -> None:
        try:
            self._write()
            remove_temporary_files(self.run.path)
        except OSError:
            os.close(self._descriptor)
            self._file.unlink(missing_ok=True)  # else the next driver waits for a sign of life
            raise

    def _beat(self) -> None:
        while not self._over.wait(lease_holder.HEARTBEAT_SECONDS):
            try:
                self.check()
                self._write()
            except LeaseLostError:
                if not self._over.is_set():
                    os.kill(os.getpid(), signal.SIGINT)
                return
            except OSError:
                continue  # a disk that is away for a while

    def _write(self) -> None:
        """Into our own file, wherever it lies by now: never over another driver's."""
        own = own_lease(nonce=self._nonce, taken=self._taken)
        os.pwrite(self._descriptor, json.dumps(own).encode().ljust(_FILE_BYTES), 0)
        os.fsync(self._descriptor)

    def _is_ours(self) -> bool:
        """Looks twice: who takes a dead lease away at the same time may hold ours for a moment."""
        for seconds in (0, _MOMENT_SECONDS):
            time.sleep(seconds)
            if (read_lease(self._file) or {}).get("nonce") == self._nonce:
                return True
        return False


def _changes(file: Path, before: bytes) -> bool:
    """Whether the lease is renewed while we look on for as long as it may miss its beats."""
    for _ in range(lease_holder.MISSED_BEATS_ALLOWED * _LOOKS_PER_BEAT):
        time.sleep(lease_holder.HEARTBEAT_SECONDS / _LOOKS_PER_BEAT)
        now = _content(file)
        if now != before:
            return now is not None
    return False
