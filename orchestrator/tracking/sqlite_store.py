"""The SQLite store of MLflow: its file, a lock for its creation, refusal of network storage.

MLflow creates the tables of a database step by step without a lock, so two processes that start on
a new file break each other's steps.
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
from urllib.parse import unquote

from trainables.errors import InputError

WAIT_SECONDS = 120.0  # creating a store takes seconds, on a busy machine many
POLL_SECONDS = 0.1


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, or None for another kind of store (see `sqlite_uri`)."""
    kind, _, path = uri.partition(":///")
    if kind not in ("sqlite", "sqlite+pysqlite"):
        return None
    return Path(unquote(path.partition("?")[0]))


def move_artifacts(database: Path, experiment: str, *, old: str, new: str) -> None:
    """Has MLflow look for the artifacts of an experiment where they are now.

    It keeps their place as it was when the experiment and each run were made, and has no call to
    change it. Needs exclusive access to the store.
    """
    with closing(sqlite3.connect(database, timeout=5)) as connection, connection:
        connection.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?)"
            " where experiment_id = ? and substr(artifact_uri, 1, ?) = ?",
            (new, len(old) + 1, int(experiment), len(old) + 1, f"{old}/"),
        )
        connection.execute(
            "update experiments set artifact_location = ? where experiment_id = ?",
            (new, int(experiment)),
        )


def is_lost(uri: str) -> bool:
    """Whether the store is a SQLite file that does not exist, as on a new machine."""
    database = sqlite_file(uri)
    return database is not None and not database.exists()


@contextmanager
def exclusive_access(uri: str) -> Iterator[None]:
    """Excludes other processes that use the same SQLite store; no effect on other stores.

    The lock is the file `<database>.lock`, which is never deleted. Raises OSError or sqlite3.Error
    if the store can't be written, and TimeoutError after WAIT_SECONDS.
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
    """Fails at once where MLflow would retry for minutes."""
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        connection.execute("begin immediate")


MOUNTS = Path("/proc/self/mounts")
NETWORK_FILESYSTEMS = (
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "gpfs", "beegfs",
    "glusterfs", "afs", "pvfs2", "orangefs", "wekafs", "fuse.sshfs", "fuse.glusterfs",
    "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.mount-s3", "fuse.juicefs", "fuse.rclone",
)  # fmt: skip


def network_filesystem(path: Path, mounts: str | None = None) -> str:
    """The network file system that a path is on, as "nfs4"; empty for a disk.

    `mounts` has the lines of /proc/mounts, by default this process's own. On other systems than
    Linux there are none, and every path counts as on a disk.
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

    `shared_folder` is the storage, if `check_storage` has found that other machines see it. Other
    kinds of store are not refused.
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
