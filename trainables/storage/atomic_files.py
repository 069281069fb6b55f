"""Atomic files: JSON and bytes that are complete or absent, and their temporary files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainables.storage.errors import storage_errors


def temporary_path(place: Path) -> Path:
    """A path beside `place`, unique over all nodes, for a file that will be moved there.

    `remove_temporary_files` deletes it if its writer is killed.
    """
    return place.with_name(f".{place.name}.{uuid.uuid4().hex}.part")


Json = dict[str, Any]
Guard = Callable[[], None]


def unguarded() -> None:
    """The guard of a folder without an owner."""


def digest(file: Path) -> str | None:
    """The sha256 of a file's content; None if there is no such file."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        return None


def write_json(file: Path, value: Mapping[str, Any], *, guard: Guard = unguarded) -> None:
    """As `write_bytes`, a value as JSON; NaN and infinity become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n"
    write_bytes(file, text.encode(), guard=guard)


def write_bytes(file: Path, content: bytes, *, guard: Guard = unguarded) -> None:
    """Replaces a file atomically; it is durable once this returns. Raises StorageError."""
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


def give_usual_mode(file: Path) -> None:
    """Lets others read a file as far as the umask does; safetensors makes its files private.

    The umask is seen by the mode of the folder, which was made just before.
    """
    mode, usual = file.stat().st_mode, file.parent.stat().st_mode & 0o666
    if usual & ~mode:
        file.chmod(stat.S_IMODE(mode) | usual)


def sync(path: Path) -> None:
    """Flushes a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_temporary_files(folder: Path) -> None:
    """Deletes temporary files at any depth, which killed processes have left.

    A process that still runs can't move its own temporary file into place any more.
    """
    for part in [*folder.rglob(".*.part")]:
        gone = part.with_name(f".{uuid.uuid4().hex}.gone")
        try:
            part.replace(gone)  # atomic: no part of a folder can be moved into place
        except FileNotFoundError:
            continue  # it was moved into place
        _discard(gone)
    for gone in [*folder.rglob(".*.gone")]:  # of a process that was killed here
        _discard(gone)


def _discard(gone: Path) -> None:
    """Deletes a file or folder; another process may write to it, or delete it, at the same time."""
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def _remove(temporary: Path) -> None:
    """Deletes an incomplete file: the disk may lack room."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def finite(value: Any) -> Any:
    """The value with null for NaN and infinity, as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
