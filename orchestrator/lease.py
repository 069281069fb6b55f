"""Lease: one driver per sweep. A second one is refused and told who holds it.

The lease is a file with the holder's host, process and heartbeat. One whose heartbeat is old, or
whose process is gone from this host, is taken over.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from trainables.errors import InputError
from trainables.run_folder import RunFolder, write_json

HEARTBEAT_SECONDS = 10.0
MISSED_BEATS_ALLOWED = 3


class Lease:
    """`with Lease(run):` holds the sweep; raises InputError where another driver does."""

    def __init__(self, run: RunFolder) -> None:
        self._file = run.lock_file
        self._nonce = uuid.uuid4().hex
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if _is_held(self._file):
            raise InputError(_held_by(self._file))
        self._take_away_stale()
        self._claim()
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._heart.join()
        if self._is_ours():
            self._file.unlink(missing_ok=True)

    def _take_away_stale(self) -> None:
        """Moves the file aside before it goes: it may have become another driver's meanwhile."""
        aside = self._file.with_name(f".{self._file.name}.{os.getpid()}.stale")
        try:
            self._file.replace(aside)
        except FileNotFoundError:
            return
        if _is_held(aside):
            aside.replace(self._file)
            raise InputError(_held_by(self._file))
        aside.unlink()

    def _claim(self) -> None:
        """Creates the file if and only if nobody else has just done so."""
        try:
            descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            raise InputError(_held_by(self._file)) from None
        with os.fdopen(descriptor, "w") as file:
            json.dump(self._own(), file)

    def _beat(self) -> None:
        """Renews the lease as long as it is ours: a driver that slept may have lost it."""
        while not self._over.wait(HEARTBEAT_SECONDS) and self._is_ours():
            write_json(self._file, self._own())

    def _is_ours(self) -> bool:
        return (read_lease(self._file) or {}).get("nonce") == self._nonce

    def _own(self) -> dict[str, Any]:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": self._nonce}
        return {**who, "heartbeat": time.time()}


def read_lease(file: Path) -> dict[str, Any] | None:
    """What the lease says, or None if there is none (or it is half written)."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the driver that wrote the lease can still be at work."""
    if time.time() - float(holder.get("heartbeat", 0)) > HEARTBEAT_SECONDS * MISSED_BEATS_ALLOWED:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    return _process_exists(int(holder.get("pid", -1)))


def _is_held(file: Path) -> bool:
    """Whether a driver at work wrote this lease, or is just writing it."""
    holder = read_lease(file)
    if holder is not None:
        return is_alive(holder)
    try:
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return False
    return age < HEARTBEAT_SECONDS * MISSED_BEATS_ALLOWED


def _process_exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _held_by(file: Path) -> str:
    holder = read_lease(file) or {}
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return (
        f"{file.parent}: {who} is running this sweep. "
        f"Watch it with: python -m orchestrator.status {file.parent}  "
        "Or wait until it ends, or give this one another --name."
    )
