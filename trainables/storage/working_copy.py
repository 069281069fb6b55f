"""Working copies: the local folders of runs whose files lie in a bucket."""

from __future__ import annotations

import hashlib
from pathlib import Path

from trainables.storage.node_cache import cache_folder
from trainables.storage.object_store import checked_url

TRIALS = "trials"
_LARGE = ("adapter/", "model/", "checkpoints/")  # fetched on request only


def small(name: str) -> bool:
    """Whether a driver and a reader need this file of a trial."""
    return not name.startswith(_LARGE)


def not_trained(name: str) -> bool:
    """Whether a host needs this file to resume a trial: all but the trained adapter or model."""
    return not name.startswith(("adapter/", "model/"))


def working_copy(url: str) -> Path:
    """The folder of this machine's copy of a run, beside the copies of runs of the same storage.

    It is in `cache_folder`. Raises InputError for a bad URL.
    """
    storage, _, name = checked_url(url).rpartition("/")
    words = storage.replace("://", "-").replace("/", "-")
    key = hashlib.sha256(storage.encode()).hexdigest()[:8]
    return cache_folder() / f"{words[-80:]}-{key}" / name
