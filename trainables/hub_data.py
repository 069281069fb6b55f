"""Data sets of the hub: each split as a Parquet file of this node, fetched once for all processes.

A data set is loaded by the package `datasets`, an optional one, at one commit. Its rows are then a
file in the hub's cache, which tells that they are there: from then on the hub is not asked, and
`datasets` is not needed. Data sets with a script are refused: no code of a hub is ever run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import InputError, first_line

EXTRA = "hub"  # of pyproject.toml
_FOLDER, _LOCK = "sweep-data", "sweep-data.lock"  # in HF_HOME
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MEDIA = ("Image", "Audio", "Video", "Pdf")  # kinds of columns
_FORMATS = ("arrow", "csv", "json", "parquet", "text")  # files of rows; others are media


@dataclass(frozen=True)
class HubData:
    """Splits of a data set of the hub, at one commit; `subset` is one of its configurations."""

    name: str
    revision: str
    splits: tuple[str, ...]
    subset: str | None = None


def fetch_data(data: Sequence[HubData]) -> None:
    """Fetches the data sets to this node, one after another.

    Raises InputError with all that can't be fetched.
    """
    faults: list[str] = []
    for each in data:
        for split in each.splits:
            try:
                fetched_split(each, split)
            except InputError as error:
                faults += error.messages
    if faults:
        raise InputError(list(dict.fromkeys(faults)))


def fetched_split(data: HubData, split: str) -> Path:
    """The Parquet file of a split on this node; fetches it if it is missing.

    Waits while another process of the node fetches. Raises InputError if it is missing and can't
    be fetched, as offline or without the package `datasets`.
    """
    _check_name(data.name)
    file = _file(data, split)
    if file.is_file():
        return file
    from filelock import FileLock

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / _LOCK):
            if not file.is_file():
                _write(file, _rows(data, split))
    except OSError as error:
        raise InputError(f"{_named(data)} can't be kept in {file.parent}: {error}") from error
    return file


def resolved_commit(name: str, revision: str = "main") -> str:
    """The commit of `revision` at the hub, or the one noted here if the hub can't be reached.

    A commit is itself. Raises InputError if there is no such data set, or if the hub can't be
    reached and none is noted.
    """
    _check_name(name)
    if _COMMIT.fullmatch(revision):
        return revision
    from httpx2 import HTTPError
    from huggingface_hub import HfApi

    note = _folder() / f"{_digest([name, revision])}.commit"
    try:
        commit = str(HfApi().dataset_info(name, revision=revision, timeout=10).sha)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(commit)
        return commit
    except (HTTPError, OSError) as error:  # HTTPError: refused, unreachable, timed out
        reason = first_line(error)
    known = note.read_text() if note.is_file() else ""
    if _COMMIT.fullmatch(known):
        return known
    raise InputError(
        f"data.hub: {name} (revision {revision}) is not to be had from the hub ({reason}) and it "
        "was never fetched here. Name a commit that is cached, give files, or log in and be online."
    )


def _check_name(name: str) -> None:
    """Raises InputError for what is no id, or is a folder too, which `datasets` would read."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"data.hub: {name!r} is no id of a data set: {error}") from error
    if Path(name).exists():
        raise InputError(
            f"data.hub: {name} is a folder here too, which would be read in its place. Start the "
            "sweep elsewhere, or name the folder's files in place of data.hub."
        )


def _file(data: HubData, split: str) -> Path:
    key = _digest([data.name, data.revision, data.subset, split])
    return _folder() / f"{data.name.replace('/', '--')}-{key}.parquet"


def _folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / _FOLDER


def _digest(parts: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _rows(data: HubData, split: str) -> list[dict[str, Any]]:
    datasets = _package()
    from httpx2 import HTTPError
    from huggingface_hub.errors import HFValidationError

    try:
        builder = datasets.load_dataset_builder(data.name, name=data.subset, revision=data.revision)
        kind = type(builder).__module__.rpartition(".")[2]
        if kind not in _FORMATS:
            raise InputError(
                f"{_named(data)} holds {kind} files; only {', '.join(_FORMATS)} are read."
            )
        builder.download_and_prepare()
        if split not in builder.info.splits:
            raise InputError(
                f"{_named(data)} has no split {split!r}; it has {', '.join(builder.info.splits)}."
            )
        found = builder.as_dataset(split=split)
        media = [n for n, feature in found.features.items() if type(feature).__name__ in _MEDIA]
        if media:
            raise InputError(f"{_named(data)} has media in {', '.join(media)}; only rows are read.")
    except InputError:
        raise
    except (
        *(HTTPError, OSError, ValueError, RuntimeError, HFValidationError),
        datasets.exceptions.DatasetsError,
    ) as error:
        raise InputError(
            f"{_named(data)} can't be fetched by {os.uname().nodename}: {first_line(error)} "
            "For a gated one accept its terms and set HF_TOKEN where the sweep is started."
        ) from error
    return list(_written(found, datasets))


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"data.hub: {os.uname().nodename} needs the package datasets: "
            f"pip install 'sweep-orchestrator[{EXTRA}]'"
        ) from error
    datasets.disable_progress_bars()
    return datasets


def _written(found: Any, datasets: Any) -> Iterator[dict[str, Any]]:
    """The rows, with the names of classes in the place of their numbers."""
    for row in found:
        yield {
            name: _named_class(value, found.features[name], datasets) for name, value in row.items()
        }


def _named_class(value: Any, feature: Any, datasets: Any) -> Any:
    if isinstance(value, list):
        inner = getattr(feature, "feature", None)
        return [_named_class(each, inner, datasets) for each in value]
    is_class = isinstance(feature, datasets.ClassLabel) and value is not None and value >= 0
    return feature.int2str(value) if is_class else value


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    partial = file.with_suffix(".partial")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), partial)
    partial.replace(file)


def _named(data: HubData) -> str:
    subset = f" ({data.subset})" if data.subset else ""
    return f"data.hub: {data.name}{subset} at {data.revision}"
