"""Fence: of several processes that train one trial, only the last to begin writes there. LIGHT.

A killed driver's hosts compute on for seconds, and those of a paused one or of a node that was cut
off for as long as they like; meanwhile the sweep's next driver goes on with the same trials.

Where a bucket is the truth, owner.json lies in the working copy and in the bucket: the first keeps
out this machine's other processes, the second those of other machines.
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
    """Another process trains this trial by now."""


def acquire_ownership(folder: TrialFolder) -> TrialFolder:
    """The folder to write in. Whoever took it over before gets TakenOverError from here on.

    No file or checkpoint of the others' comes into its place after this returns: they ask
    (`TrialFolder.guard`) when all is written beside, and what lies beside is removed here. What
    they remove or add to (old checkpoints, the log) is asked for before only: one who had asked
    right before this may still do so a moment later.

    A bucket moves nothing into place, so there too it is asked for before only: right before each
    object, or before the last of a checkpoint's (its manifest) if it is one of many. Who had asked
    right before this returns may still put that one object: a file of the same trial at the same
    seed, which its seal or manifest tells from what it does not belong to. The working copy is what
    the bucket holds when this returns, checkpoints included.

    Raises StorageError where the trial's spec is not there: see `refuse_another_folder`.
    """
    refuse_another_folder(folder)
    token = uuid.uuid4().hex
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    owner = folder.owner_file
    write_json(owner, {"token": token, **who})
    remove_temporary_files(folder.path)
    taken = replace(folder, guard=lambda: _check(owner, token))
    return taken if folder.mirror is None else _taken_over_there(taken, folder.mirror, token)


def refuse_another_folder(folder: TrialFolder) -> None:
    """Raises StorageError on a node that sees another folder at the trial's place, or none: there
    every trial would fail, one after another. A node may join long after the sweep's start.
    """
    if folder.mirror is None and not folder.spec_file.exists():
        raise StorageError(
            f"{folder.path}: is not there on {socket.gethostname()}, so that node does not share "
            "the storage. Mount it there, or end the node; then resume."
        )


def _taken_over_there(folder: TrialFolder, mirror: Mirror, token: str) -> TrialFolder:
    from trainables.storage.working_copy import not_trained

    key = f"{mirror.prefix}{folder.owner_file.name}"
    mirror.store.put(key, folder.owner_file.read_bytes())
    mirror.pull(not_trained, prune=True)
    return replace(folder, mirror=replace(mirror, fence=lambda: _check_there(mirror, key, token)))


def _check_there(mirror: Mirror, key: str, token: str) -> None:
    """As `_check`, of the bucket; StorageError while it can't be asked."""
    owner = mirror.store.get(key)
    if owner is None or token.encode() not in owner.content:
        raise OwnershipLostError(f"{mirror.url}: another process has taken this trial over")


def _check(owner: Path, token: str) -> None:
    """A disk that can't be read for a moment says nothing of who the owner is: OSError."""
    try:
        is_ours = token in owner.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise OwnershipLostError(f"{owner.parent}: another process has taken this trial over")
