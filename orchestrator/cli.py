"""What the driver's commands share: arguments that name a run, a storage and a search space."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.shipped_files import existing_path

DEFAULT_SPACE = "search_spaces/quickstart.yaml"


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the positional argument RUN_DIR, read by `orchestrator.runs.results.open_run`."""
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a sweep: runs/NAME, or its URL")


def storage_place(text: str) -> str:
    """The value of `--storage` as an absolute path or a URL. Raises InputError."""
    from trainables.storage.object_store import checked_url, is_url

    return checked_url(text) if is_url(text) else str(Path(text).expanduser().resolve())


def space_file(text: str) -> Path:
    """The file as given, else the shipped one of that name, whatever the working directory is."""
    file = Path(text)
    return file if file.exists() else existing_path(text) or file
