"""Working copies: the local folders in which what lies in a bucket is worked on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from trainables.storage.object_store import checked_url

CACHE = "SWEEP_CACHE"  # the variable that names the folder of working copies
TRIALS = "trials"
_LARGE = ("adapter/", "model/", "checkpoints/")  # fetched only where they are asked for


def small(name: str) -> bool:
    """Whether a file of a trial is one that a driver and a reader need."""
    return not name.startswith(_LARGE)


def not_trained(name: str) -> bool:
    """What a host needs to go on with a trial: all but what the trial has ended with."""
    return not name.startswith(("adapter/", "model/"))


def working_copy(url: str) -> Path:
    """Where this machine keeps its copy of a run: in a folder for the runs beside it.

    `SWEEP_CACHE`, or `sweeps` in the user's cache folder. Raises InputError for a bad URL.
    """
    storage, _, name = checked_url(url).rpartition("/")
    given = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/sweeps"
    words = storage.replace("://", "-").replace("/", "-")
    key = hashlib.sha256(storage.encode()).hexdigest()[:8]
    return Path(given).expanduser().absolute() / f"{words[-80:]}-{key}" / name
