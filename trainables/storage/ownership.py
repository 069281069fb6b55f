"""Ownership: of several processes that train one trial, only the last one may write its files.

Hosts continue to compute for seconds after their driver was killed, and for an unlimited time if it
is paused or their node is cut off; meanwhile the next driver resumes the same trials.

For a run in a bucket, owner.json is in the working copy and in the bucket: the first excludes other
processes of this machine, the second those of other machines.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.storage.atomic_files import remove_temporary_files, write_json
from trainables.storage.errors import StorageError
from trainables.storage.trial_folder import TrialFolder

if TYPE_CHECKING:
    from trainables.storage.mirror import Mirror


class OwnershipLostError(RuntimeError):
    """Another process has acquired the ownership of this trial."""


def acquire_ownership(folder: TrialFolder) -> TrialFolder:
    """Returns the folder with a guard; previous owners get OwnershipLostError from now on.

    After this returns no previous owner can commit a file or checkpoint: every commit calls
    `TrialFolder.guard` after it has written a temporary file, and temporary files are deleted here.
    Deletions (of old checkpoints) and appends (to the log) call the guard only beforehand: an owner
    that called it just before may still complete one.

    A bucket has no rename, so the guard is called before each object, or before the last one of
    several (the manifest of a checkpoint). An owner that called it just before may still put that
    object: a file of the same trial and seed, whose checksum or manifest shows where it belongs.
    When this returns, the working copy holds what the bucket does, checkpoints included.

    Raises StorageError if the trial has no spec here, see `refuse_another_folder`.
    """
    refuse_another_folder(folder)
    token = uuid.uuid4().hex
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    owner = folder.owner_file
    write_json(owner, {"token": token, **who})
    remove_temporary_files(folder.path)
    owned = replace(folder, guard=lambda: _check(owner, token))
    return owned if folder.mirror is None else _acquired_in_bucket(owned, folder.mirror, token)


def refuse_another_folder(folder: TrialFolder) -> None:
    """Raises StorageError on a node that does not share the storage, where every trial would fail.

    A node may join long after the sweep's start.
    """
    if folder.mirror is None and not folder.spec_file.exists():
        raise StorageError(
            f"{folder.path}: is not there on {socket.gethostname()}, so that node does not share "
            "the storage. Mount it there, or end the node; then resume."
        )


def _acquired_in_bucket(folder: TrialFolder, mirror: Mirror, token: str) -> TrialFolder:
    from trainables.storage.working_copy import not_trained

    key = f"{mirror.prefix}{folder.owner_file.name}"
    mirror.store.put(key, folder.owner_file.read_bytes())
    mirror.pull(not_trained, prune=True)
    return replace(
        folder, mirror=replace(mirror, fence=lambda: _check_in_bucket(mirror, key, token))
    )


def _check_in_bucket(mirror: Mirror, key: str, token: str) -> None:
    """As `_check`, for the bucket; raises StorageError while it is unreachable."""
    owner = mirror.store.get(key)
    if owner is None or token.encode() not in owner.content:
        raise OwnershipLostError(f"{mirror.url}: another process has taken this trial over")


def _check(owner: Path, token: str) -> None:
    """Raises OwnershipLostError, or OSError if the disk can't be read at the moment."""
    try:
        is_ours = token in owner.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise OwnershipLostError(f"{owner.parent}: another process has taken this trial over")
