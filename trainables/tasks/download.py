"""`python -m trainables.tasks.download finqa`: fetches a task's official files and checks them."""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError, did_you_mean

TIMEOUT_SECONDS = 60.0

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Files of one commit: `blobs` has each file's git blob id by its name under `base_url`."""

    base_url: str
    blobs: dict[str, str]


SOURCES: dict[str, Source] = {
    "finqa": Source(
        base_url="https://raw.githubusercontent.com/czyssrs/FinQA/"
        "0f16e2867befa6840783e58be38c9efb9229d742/dataset/",
        blobs={
            "train.json": "a6c2c5a60f9abe3fba5a793cc4d9e1dee2e09209",
            "dev.json": "970f239f591c782b17df420c0d343b780737f3da",
            "test.json": "59958c7c3bb3b21f4dff6bc912a0fe0ae710aee0",
        },
    ),
    "tatqa": Source(
        base_url="https://raw.githubusercontent.com/NExTplusplus/TAT-QA/"
        "870accc41953dcde885aabeb963d94aabdc0fbc3/dataset_raw/",
        blobs={
            "tatqa_dataset_train.json": "ec6a61be61ea7bb92c3278877e46e8488cc5203c",
            "tatqa_dataset_dev.json": "48075c812af3fe6698b1d5cb50d9dbf358d52784",
            "tatqa_dataset_test_gold.json": "3d5d3b691af572646ba9b1ac4d8f78c5dca09732",
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _download(options), prefix="")


def download(
    source: Source, *, folder: Path, timeout_seconds: float = TIMEOUT_SECONDS
) -> list[Path]:
    """Bring every file of the source into `folder`; a file that is right already is kept.

    A file appears only whole and checked. Raises InputError where a file can't be fetched, is not
    what the commit has, or can't be written.
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
    if options.dataset not in SOURCES:
        hint = did_you_mean(options.dataset, SOURCES)
        raise InputError(f"no dataset named {options.dataset!r}.{hint}")
    folder = Path(options.output or f"data/{options.dataset}")
    download(SOURCES[options.dataset], folder=folder)
    return DONE


def blob_id(content: bytes) -> str:
    """The id that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "trainables.tasks.download",
        description="Fetch a task's official files and check them by their git blob ids.\n"
        "Files that are right already are kept.",
    )
    parser.add_argument("dataset", help=f"one of: {', '.join(SOURCES)}")
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
    """Written beside and moved into place, so that the name never holds half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                for start in range(0, len(content), _BLOCK_BYTES):
                    file.write(content[start : start + _BLOCK_BYTES])
            Path(beside).chmod(0o644)
            Path(beside).replace(path)
        finally:
            Path(beside).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: can't be written: {error}. Name another folder with --output."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
