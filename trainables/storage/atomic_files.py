"""Atomic files: JSON and bytes that are whole or not there, and the temporary files beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.storage.errors import storage_errors


def temporary_path(place: Path) -> Path:
    """Where what will be moved to `place` is written (see `run_folder.remove_temporary_files`); no
    two writers get one name, on whichever nodes they are."""
    return place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")


Json = dict[str, Any]
Guard = Callable[[], None]


def unguarded() -> None:
    """The guard of a folder that anybody may write."""


def digest(file: Path) -> str | None:
    """The sha256 of a file's content; None if there is no such file."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def write_json(file: Path, value: Mapping[str, Any], *, guard: Guard = unguarded) -> None:
    """Writes beside and moves into place; NaN and infinity are written as null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n"
    write_bytes(file, text.encode(), guard=guard)


def write_bytes(file: Path, content: bytes, *, guard: Guard = unguarded) -> None:
    """Writes beside and moves into place, durable once it returns; raises StorageError."""
    temporary = temporary_path(file)
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as part:
                part.write(content)
                part.flush()
                os.fsync(part.fileno())
            guard()
            temporary.replace(file)
            sync(file.parent)
        finally:
            _remove(temporary)


def sync(path: Path) -> None:
    """What a file or a folder holds is on the disk once this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary_files(folder: Path) -> None:
    """Removes what killed processes have left at any depth; one that still lives and is about to
    move its own into place can't any more.
    """
    for part in [*folder.rglob(".*.part")]:
        gone = part.with_name(f".{uuid.uuid4().hex}.gone")
        try:
            part.replace(gone)  # at once: no half of a folder can be moved into place
        except FileNotFoundError:
            continue  # it is in its place now
        _discard(gone)
    for gone in [*folder.rglob(".*.gone")]:  # of who was killed right here
        _discard(gone)


def _discard(gone: Path) -> None:
    """A living process may still write into what was its folder, or remove it too."""
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def _remove(temporary: Path) -> None:
    """What was half written takes room that the disk may lack."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
