"""A sqlite store of MLflow as a file: where it lies, and that one process makes it. LIGHT.

MLflow makes a database's tables step by step and without a lock: two processes that start on one
fresh file break each other's steps.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

WAIT_SECONDS = 120.0  # making a store takes seconds, on a busy machine many
POLL_SECONDS = 0.1


def sqlite_file(uri: str) -> Path | None:
    """The database's file, or None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def is_lost(uri: str) -> bool:
    """Whether the store is a database's file that is not there, as on a new machine."""
    database = sqlite_file(uri)
    return database is not None and not database.exists()


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keeps other processes out of here for the same sqlite store; no other store is held up.

    The lock is the file `<database>.lock`, which stays. Raises OSError or sqlite3.Error if the
    store can't be written, and TimeoutError after WAIT_SECONDS.
    """
    database = sqlite_file(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("a") as lock:
        _wait_for(lock)  # released when the file is closed, even by a killed process
        _check_writable(database)
        yield


def _wait_for(lock: IO[str]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise TimeoutError(f"{lock.name} is held by another process") from None
            time.sleep(POLL_SECONDS)
        else:
            return


def _check_writable(database: Path) -> None:
    """Says at once what MLflow would retry for minutes."""
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("begin immediate")
