"""What the driver's commands share: arguments that name a run, a storage and a search space."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from orchestrator.shipped_files import existing_path
from trainables.errors import InputError

_LONGEST_NAME, _LONGEST_PATH = 255, 3500  # of 4096: the files of a run are below it
DEFAULT_SPACE = "search_spaces/quickstart.yaml"


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the positional argument RUN_DIR, read by `orchestrator.runs.results.open_run`."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a sweep: runs/NAME, or its URL")


def storage_place(text: str) -> str:
    """The value of `--storage` as an absolute path or a URL. Raises InputError."""
    from trainables.storage.object_store import checked_url, is_url

    if is_url(text):
        return checked_url(text)
    expanded = os.path.expanduser(text)  # noqa: PTH111  # pathlib's raises for an unknown user
    place = str(Path(expanded).resolve())
    longest, whole = max(map(_bytes, Path(place).parts)), _bytes(place)
    if longest > _LONGEST_NAME or whole > _LONGEST_PATH:
        raise InputError(
            f"--storage: a folder's name of {longest} bytes in a path of {whole}; "
            f"a name may have {_LONGEST_NAME}, a path {_LONGEST_PATH}."
        )
    return place


def space_file(text: str) -> Path:
    """The file as given, else the shipped one of that name, whatever the working directory is."""
    found, file = existing_path(text), Path(text)
    return file if found is None or found == file.resolve() else found


def _bytes(path: str) -> int:
    return len(os.fsencode(path))
