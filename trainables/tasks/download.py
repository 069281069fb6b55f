"""`python -m trainables.tasks.download finqa`: fetches a task's official files and checks them."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError, did_you_mean
from trainables.tasks.registry import find_task, task_names
from trainables.tasks.source import Source, download_folder

TIMEOUT_SECONDS = 60.0

_BLOCK_BYTES = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    return run_command(lambda: _download(_parser().parse_args(arguments)), prefix="")


def download(
    source: Source, *, folder: Path, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[Path]:
    """Fetches every file of the source into `folder`; a file that is there and right is kept.

    A file appears only whole and checked. Raises InputError if a file can't be fetched, is not the
    one of the commit, or can't be written.
    """
    paths = []
    for name, blob in source.blobs.items():
        path = folder / name
        if path.is_file() and blob_id(path.read_bytes()) == blob:
            print(f"{path}: already there")
        else:
            content = _fetch(source.base_url + name, source, folder, timeout_seconds)
            _check(content, blob=blob, url=source.base_url + name)
            _write(path, content)
            print(f"{path}: fetched, {len(content) / 1e6:.1f} MB, blob {blob[:12]} as expected")
        paths.append(path)
    return paths


def _download(options: argparse.Namespace) -> int:
    source = _source_of(options.dataset)
    download(source, folder=Path(options.output or download_folder(options.dataset)))
    return DONE


def blob_id(content: bytes) -> str:
    """The id that git gives to the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _source_of(task: str) -> Source:
    if task not in task_names():
        raise InputError(f"no dataset named {task!r}.{did_you_mean(task, task_names())}")
    source = find_task(task).source
    if source is None:
        raise InputError(f"{task}: this task has no files to download.")
    return source


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "trainables.tasks.download",
        description="Fetch a task's official files and check them by their git blob ids.\n"
        "Files that are right already are kept.",
    )
    parser.add_argument("dataset", help=f"one of: {', '.join(task_names())}")
    parser.add_argument("--output", metavar="FOLDER", help="where to (default: data/DATASET)")
    return parser


def _fetch(url: str, source: Source, folder: Path, timeout_seconds: float) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=timeout_seconds) as response:
            content: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        names = ", ".join(source.blobs)
        raise InputError(
            f"{url} can't be fetched: {error}. Where there is a network, fetch {names} from"
            f" {source.base_url}, put them into {folder}, and run this command again: it checks"
            " them and says so."
        ) from error
    return content


def _check(content: bytes, *, blob: str, url: str) -> None:
    found = blob_id(content)
    if found != blob:
        raise InputError(
            f"{url}: the content's git blob id is {found}, not {blob}; nothing was written."
            " Something between here and the server changed it: try another network."
        )


def _write(path: Path, content: bytes) -> None:
    """Writes beside the path and renames, so that the path never holds half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with beside.open("xb") as file:
                for start in range(0, len(content), _BLOCK_BYTES):
                    file.write(content[start : start + _BLOCK_BYTES])
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written: {error}. Name another folder with --output."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
