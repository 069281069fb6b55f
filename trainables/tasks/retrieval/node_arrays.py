"""Arrays that a node computes once, whichever of its processes needs them first, and keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainables.storage.atomic_files import temporary_path
from trainables.storage.errors import storage_errors
from trainables.storage.node_cache import cache_folder

FOLDER = "retrieval"  # in the cache of the node


def node_array(kind: str, parts: Sequence[Any], make: Callable[[], Any]) -> Any:
    """The array that `make` returns, from the node's cache if it is there, else made and kept.

    `parts` are all that decides it, as JSON has it. While one process of the node makes it, the
    others wait. What is read of it stays on disk until it is used. Raises StorageError if the cache
    can't be written.
    """
    from filelock import FileLock

    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    file = cache_folder() / FOLDER / f"{kind}-{key}.npy"
    found = _read(file)
    if found is not None:
        return found
    with storage_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if _read(file) is None:
                _write(file, make())
            return _read(file)


def _read(file: Path) -> Any:
    import numpy

    try:
        return numpy.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # missing or damaged: to be made


def _write(file: Path, array: Any) -> None:
    import numpy

    part = temporary_path(file)
    try:
        with part.open("wb") as stream:
            numpy.save(stream, array)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
