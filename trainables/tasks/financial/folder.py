"""The folder of a published data set: the option `folder`, and its files whatever their format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.tasks.own_data.rows import FORMATS


def folder_fault(value: Any) -> str | None:
    """What is wrong with the option, or None."""
    if isinstance(value, str) and Path(value).is_dir():
        return None
    return f"data.folder: got {value!r}; needs the folder with the data set's files."


def folder_of(options: Mapping[str, Any]) -> Path:
    """Raises InputError if none is named."""
    if "folder" not in options:
        raise InputError("data.folder: missing; needs the folder with the data set's files.")
    return Path(options["folder"])


def find_file(folder: Path, ending: str) -> Path:
    """The only file of the folder, or below it, whose name ends in `ending` before its format.

    Raises InputError if there is none, or are several.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and stem(path.name).endswith(ending) and _format(path.name) in FORMATS
    )
    if len(found) != 1:
        there = ", ".join(str(path) for path in found) or "none"
        raise InputError(
            f"{folder}: needs one file named ...{ending} in {', '.join(FORMATS)}; there is {there}."
        )
    return found[0]


def stem(name: str) -> str:
    """A file's name without its format."""
    return name.removesuffix(".gz").rpartition(".")[0]


def _format(name: str) -> str:
    return "." + name.removesuffix(".gz").rpartition(".")[2]
