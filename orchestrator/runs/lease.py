"""The lease of a sweep: one driver per run folder; a second one is refused.

A lease names the holder's host and process and its last heartbeat. It is taken over if the process
is gone from this host, or if three heartbeats are missing. The clocks of two hosts are never
compared: a driver on another host is watched, by the clock of this one, until its lease changes.
"Another host" includes one of the same name and another container on this machine, because their
processes can't be seen from here.

This module has what every lease does, and the lease in a file of the run folder;
`orchestrator.runs.bucket_lease` has the one in a bucket.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from orchestrator.runs import lease_holder
from orchestrator.runs.lease_holder import (
    held_by,
    holder_text,
    is_alive_here,
    lease_content,
    own_lease,
    parsed,
    read_lease,
)
from trainables.errors import InputError
from trainables.storage.atomic_files import remove_temporary_files
from trainables.storage.errors import storage_errors
from trainables.storage.run_folder import RunFolder

_FILE_BYTES = 512  # always, so that a heartbeat never changes the size
_CHECKS_PER_HEARTBEAT = 20
_SECOND_LOOK_SECONDS = 0.2


class LeaseLostError(InputError):
    """Another driver has taken the sweep over."""


class HeartbeatLease(ABC):
    """`with HeartbeatLease(...) as held:` holds a sweep; a thread renews the lease meanwhile.

    Entering raises InputError where another driver holds the sweep. It may wait for three
    heartbeats of a driver on another host, and `notify`s of that. `run` is the run folder to write
    to while the lease is held: its guard raises LeaseLostError once another driver has taken the
    sweep over, and this process is then interrupted as if by Ctrl-C.
    """

    run: RunFolder

    def __init__(self, place: str, storage: str, *, notify: Callable[[str], None]) -> None:
        """`place` and `storage`, as "disk", name in messages where the lease lies."""
        self._where, self._storage, self._notify = place, storage, notify
        self._nonce = uuid.uuid4().hex
        self._taken = time.time()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    @abstractmethod
    def __enter__(self) -> Self:
        """Holds the sweep from here on."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._leave()
        except KeyboardInterrupt:  # from the heartbeat thread, which has just found the lease lost
            if self._may_be_held():
                self._leave()
        finally:
            self._close()

    def check(self) -> None:
        """Raises LeaseLostError if another driver has taken the sweep over."""
        self._require_ours()

    @abstractmethod
    def _content(self) -> bytes | None:
        """What the lease says now, whoever holds it; None if there is none."""

    @abstractmethod
    def _is_ours(self) -> bool:
        """Whether this driver holds the lease."""

    @abstractmethod
    def _renew(self) -> None:
        """Writes a heartbeat; raises LeaseLostError, or OSError if the storage is away."""

    @abstractmethod
    def _give_back(self) -> None:
        """Lets the next driver take the lease."""

    def _may_be_held(self) -> bool:
        """Whether an interrupted `_leave` has still to give the lease back."""
        return True

    @abstractmethod
    def _close(self) -> None:
        """Releases what this process holds beside the lease itself."""

    def _leave(self) -> None:
        """Gives the lease back; raises LeaseLostError if it is another driver's."""
        self._over.set()
        self._heart.join()
        self._require_ours()
        self._give_back()

    def _beat(self) -> None:
        while not self._over.wait(lease_holder.HEARTBEAT_SECONDS):
            try:
                self._renew()
            except LeaseLostError:
                if not self._over.is_set():
                    interrupt_this_process()
                return
            except OSError:
                continue  # the next heartbeat tries again

    def _require_ours(self) -> None:
        if not self._is_ours():
            raise LeaseLostError(
                f"{self._where}: this driver was silent for too long (paused, or cut off from its "
                f"{self._storage}), and {holder_text(parsed(self._content()))} has taken the sweep "
                "over. This one has stopped and writes nothing more."
            )

    def _is_alive(self, content: bytes, renewed: Callable[[], bool | None]) -> bool:
        """Whether the driver that wrote this lease is at work.

        `renewed` returns None while the lease is unchanged, then whether a driver holds it. It is
        polled for three heartbeats if this machine can't see the process.
        """
        known = is_alive_here(parsed(content))
        if known is not None:
            return known
        seconds = lease_holder.HEARTBEAT_SECONDS * lease_holder.MISSED_BEATS_ALLOWED
        self._notify(
            f"{holder_text(parsed(content))} held this sweep: waiting up to {seconds:.0f} s for a "
            "sign of life from it ..."
        )
        for _ in range(lease_holder.MISSED_BEATS_ALLOWED * _CHECKS_PER_HEARTBEAT):
            time.sleep(lease_holder.HEARTBEAT_SECONDS / _CHECKS_PER_HEARTBEAT)
            is_held = renewed()
            if is_held is not None:
                return is_held
        return False

    def _own_content(self) -> bytes:
        return json.dumps(own_lease(nonce=self._nonce, taken=self._taken)).encode()

    def _refusal(self, content: bytes | None) -> InputError:
        """The error for a second driver, which names the one that wrote this lease."""
        return InputError(held_by(self._where, parsed(content)))


class Lease(HeartbeatLease):
    """The lease of a run folder on a disk: a file that is created if it is absent.

    A holder writes heartbeats to the file that it opened, never to another one at the same path.
    """

    def __init__(self, run: RunFolder, *, notify: Callable[[str], None] = print) -> None:
        super().__init__(str(run.path), "disk", notify=notify)
        self.run = replace(run, guard=self.check)
        self._file = run.lock_file

    def __enter__(self) -> Self:
        """Holds the sweep from here on: no other driver can move a file to its place any more.

        Raises StorageError if the lease can't be written, and then leaves none behind.
        """
        with storage_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            stale = self._content()
            if stale is not None and self._is_alive(stale, lambda: self._renewed(stale)):
                raise self._refusal(self._content())
            self._remove_stale(stale)
            self._claim()
            self._begin()
        self._heart.start()
        return self

    def _content(self) -> bytes | None:
        return lease_content(self._file)

    def _renewed(self, before: bytes) -> bool | None:
        now = self._content()
        return None if now == before else now is not None

    def _remove_stale(self, stale: bytes | None) -> None:
        """Moves the file aside before deleting it: another driver may have replaced it by now."""
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}.stale")
        try:
            self._file.replace(aside)
        except FileNotFoundError:
            return
        if lease_content(aside) != stale:
            aside.replace(self._file)
            raise self._refusal(self._content())
        aside.unlink()

    def _claim(self) -> None:
        """Creates the file; raises InputError if another driver has just done so."""
        try:
            self._descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            raise self._refusal(self._content()) from None

    def _begin(self) -> None:
        try:
            self._write()
            remove_temporary_files(self.run.path)
        except OSError:
            os.close(self._descriptor)
            self._file.unlink(missing_ok=True)  # else the next driver waits for a sign of life
            raise

    def _renew(self) -> None:
        self._require_ours()
        self._write()

    def _write(self) -> None:
        """Writes to the descriptor, wherever the file lies by now: never to another driver's."""
        os.pwrite(self._descriptor, self._own_content().ljust(_FILE_BYTES), 0)
        os.fsync(self._descriptor)

    def _is_ours(self) -> bool:
        """Looks twice: a driver that removes a stale lease may hold ours aside for a moment."""
        for seconds in (0, _SECOND_LOOK_SECONDS):
            time.sleep(seconds)
            if (read_lease(self._file) or {}).get("nonce") == self._nonce:
                return True
        return False

    def _may_be_held(self) -> bool:
        return self._file.exists()

    def _give_back(self) -> None:
        with storage_errors(self._file):
            self._file.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._descriptor)


def interrupt_this_process() -> None:
    """As Ctrl-C does; as SIGTERM where Ctrl-C is ignored, as it is in a script's background."""
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGTERM if is_ignored else signal.SIGINT)
