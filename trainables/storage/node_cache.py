"""The cache of this node: the folder of what its processes make once and may make again."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "SWEEP_CACHE"  # environment variable: the folder


def cache_folder() -> Path:
    """`SWEEP_CACHE`, or `sweeps` in the user's cache folder; it need not exist."""
    folder = os.environ.get(CACHE) or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/sweeps"
    return Path(folder).expanduser().absolute()
