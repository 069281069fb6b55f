"""The notes of a mirrored folder: its files as they were when disk and bucket last agreed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.storage.atomic_files import temporary_path
from trainables.storage.errors import storage_errors
from trainables.storage.object_store import Tag

FILE = ".mirror.json"
Note = list[Any]  # size, time of writing in nanoseconds, and the two parts of the object's tag


@dataclass(frozen=True)
class Notes:
    """`files` has the note of each file, `elsewhere` the sizes of objects that were not fetched."""

    files: Mapping[str, Note] = field(default_factory=dict)
    elsewhere: Mapping[str, int] = field(default_factory=dict)


def read_notes(folder: Path) -> Notes:
    """The notes of a folder; empty if its file is missing or damaged, which costs downloads."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        return Notes(dict(found["files"]), dict(found["elsewhere"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Notes()


def update_notes(
    folder: Path, changes: Mapping[str, Note | None], *, elsewhere: Mapping[str, int] | None = None
) -> None:
    """Changes the notes of files, and deletes those that become None.

    `elsewhere` replaces what was noted there; None keeps it.
    """
    if not folder.is_dir() or (not changes and elsewhere is None):
        return
    notes = read_notes(folder)
    files = {**notes.files, **changes}
    not_fetched = notes.elsewhere if elsewhere is None else elsewhere
    content = {
        "files": {name: note for name, note in files.items() if note is not None},
        "elsewhere": {name: size for name, size in not_fetched.items() if name not in changes},
    }
    write_file(folder / FILE, json.dumps(content).encode())


def note_of(file: Path, tag: Tag) -> Note | None:
    """The note of a file that agrees with this version of its object; None if it is gone."""
    found = stat_of(file)
    return None if found is None else [*found, tag.e_tag, tag.version]


def stat_of(file: Path) -> list[int] | None:
    """The part of a file's note that the disk alone knows."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def write_file(file: Path, content: bytes, *, written_ns: int = 0) -> None:
    """Replaces a file atomically, with this time of writing; it need not survive a power cut."""
    temporary = temporary_path(file)
    with storage_errors(file):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            if written_ns:
                os.utime(temporary, ns=(written_ns, written_ns))
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
