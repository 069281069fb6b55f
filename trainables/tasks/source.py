"""Source: a task's official files at one commit, and which of them is which split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """The files that `python -m trainables.tasks.download` fetches for a task.

    `blobs` has each file's git blob id by its name under `base_url`, which names one commit.
    `splits` has the name of the file of each split; a task that reads its files from one folder
    has the name of that `option` instead.
    """

    base_url: str
    blobs: Mapping[str, str]
    splits: Mapping[str, str] = field(default_factory=dict)
    option: str = ""


def download_folder(task: str) -> str:
    """Where a task's files are put unless another folder is named; relative to the directory in
    which the command is run."""
    return f"data/{task}"


def downloaded_data(task: str, source: Source) -> dict[str, str]:
    """The task's options that name the downloaded file of each split, or their folder."""
    if source.option:
        return {source.option: download_folder(task)}
    return {split: f"{download_folder(task)}/{name}" for split, name in source.splits.items()}
