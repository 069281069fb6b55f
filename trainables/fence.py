"""Fence: of several processes that train one trial, only the last to begin writes there. LIGHT.

A killed driver's hosts compute on for seconds, and those of a paused one or of a node that was cut
off for as long as they like; meanwhile the sweep's next driver goes on with the same trials.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import replace
from pathlib import Path

from trainables.run_folder import TrialFolder, remove_half_written, write_json


class TakenOverError(RuntimeError):
    """Another process trains this trial by now."""


def take_over(folder: TrialFolder) -> TrialFolder:
    """The folder to write in. Whoever took it over before gets TakenOverError from here on.

    No file or checkpoint of the others' comes into its place after this returns: they ask
    (`TrialFolder.guard`) when all is written beside, and what lies beside is removed here. What
    they remove or add to (old checkpoints, the log) is asked for before only: one who had asked
    right before this may still do so a moment later.
    """
    token = uuid.uuid4().hex
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    owner = folder.path / "owner.json"
    write_json(owner, {"token": token, **who})
    remove_half_written(folder.path)
    return replace(folder, guard=lambda: _check(owner, token))


def _check(owner: Path, token: str) -> None:
    """A disk that can't be read for a moment says nothing of who the owner is: OSError."""
    try:
        is_ours = token in owner.read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise TakenOverError(f"{owner.parent}: another process has taken this trial over")
