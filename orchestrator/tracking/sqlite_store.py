"""A sqlite store of MLflow as a file: where it lies, and that one process makes it. LIGHT.

MLflow makes a database's tables step by step and without a lock: two processes that start on one
fresh file break each other's steps.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from trainables.errors import InputError

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


MOUNTS = Path("/proc/self/mounts")
NETWORK_FILESYSTEMS = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "gpfs", "beegfs",
    "glusterfs", "afs", "pvfs2", "orangefs", "wekafs", "fuse.sshfs", "fuse.glusterfs",
    "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "fuse.rclone",
)  # fmt: skip


def network_filesystem(path: Path, mounts: str | None = None) -> str:
    """The kind of network storage that a path lies on, as "nfs4"; empty for a disk.

    `mounts` are the lines of /proc/mounts (by default this process's own; elsewhere than on Linux
    none are known, and every path counts as a disk's).
    """
    if mounts is None:
        mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    real, best, kind = Path(os.path.realpath(path)), Path(), ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        inside = real.is_relative_to(point)
        if inside and (not kind or len(point.parts) >= len(best.parts)):
            best, kind = point, fields[2]
    return kind if kind in NETWORK_FILESYSTEMS else ""


def refuse_shared_sqlite(
    uri: str, *, shared_folder: Path | None = None, mounts: str | None = None
) -> None:
    """Raises InputError for a SQLite store on network storage or below `shared_folder`.

    `shared_folder`: the storage, where `check_storage` has found that other machines see it. Any
    other kind of store is left alone.
    """
    database = sqlite_file(uri)
    if database is None:
        return
    network = network_filesystem(database.parent, mounts)
    is_below = shared_folder is not None and Path(os.path.realpath(database)).is_relative_to(
        os.path.realpath(shared_folder)
    )
    if network or is_below:
        lies = f"{network} storage" if network else f"{shared_folder}, which other machines share"
        raise InputError(
            f"--tracking-uri: {uri}: the database lies on {lies}; SQLite is damaged there sooner "
            "or later. Use an MLflow server (--tracking-uri http://HEAD:5000), or a SQLite on this "
            "machine's own disk."
        )
