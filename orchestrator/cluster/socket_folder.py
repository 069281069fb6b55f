"""Folders for sockets: the kernel allows their paths only a hundred characters."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
_SHORT = Path("/tmp")


def folder_for_sockets(longest_name: int, *, first: Path | None = None) -> Path | None:
    """A folder for temporary files in which a socket's path below it may have `longest_name` bytes.

    That is `first` (by default Python's, thus TMPDIR) if it serves, else /tmp; None if neither can
    be used.
    """
    wanted = Path(tempfile.gettempdir()) if first is None else first
    room = LONGEST_SOCKET_PATH - longest_name - 1
    return next((each for each in (wanted, _SHORT) if _serves(each, room)), None)


def _serves(folder: Path, room: int) -> bool:
    if len(os.fsencode(folder)) > room:
        return False
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
