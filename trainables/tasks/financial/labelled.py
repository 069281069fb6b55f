"""LabelledSentences: classification of sentences with published splits, a folder of files.

A published training split gives this project's train and selection splits: of the sentences, each
with its doubles, a seeded tenth is the selection split. The published test split is the report
split, and neither chooses nor trains.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from trainables.spec.checks import Check
from trainables.tasks.financial.folder import folder_fault, folder_of, stem
from trainables.tasks.own_data.classification import Classification
from trainables.tasks.own_data.rows import Row
from trainables.tasks.own_data.table import Table
from trainables.tasks.task import Example

SPLIT_SEEDS = (5768, 78516, 944601)
_SELECTION_SHARE = 0.1


def split_seed(value: Any) -> str | None:
    if value in SPLIT_SEEDS:
        return None
    return f"space.split_seed: got {value!r}; needs one of {', '.join(map(str, SPLIT_SEEDS))}."


@dataclass(frozen=True)
class LabelledSentences(Classification):
    """A subclass reads the published splits and names the labels."""

    unread_options: ClassVar[tuple[str, ...]] = (
        *("train", "selection", "report", "file", "split", "columns", "allow_duplicates", "stop"),
    )
    more_options: ClassVar[Mapping[str, Check]] = {"folder": folder_fault, "split_seed": split_seed}
    knobs: ClassVar[tuple[str, ...]] = ("prompt", "target", "answer", "split_seed")

    @abstractmethod
    def published(self) -> tuple[list[tuple[str, str, Row]], list[tuple[str, str, Row]]]:
        """The training and the test split: sentence, label and row of each.

        Raises InputError with all that is wrong with the files.
        """

    @property
    def folder(self) -> Path:
        """Raises InputError if none is named."""
        return folder_of(self.more)

    @property
    def seed(self) -> int:
        """Of the published split."""
        return int(self.more.get("split_seed", SPLIT_SEEDS[0]))

    def facts(self, split: str) -> dict[str, str | int]:
        """`also_trained`: how many of the split's sentences are in the train split as well."""
        trained = {each.group for each in self.load("train")}
        shared = sum(each.group in trained for each in self.load(split)) if split != "train" else 0
        return {**super().facts(split), "also_trained": shared}

    @cached_property
    def _read(self) -> Table:
        train, test = (self._examples(rows) for rows in self.published())
        groups = sorted({each.group for each in train}, key=self._rank)
        chosen = set(groups[: max(1, round(_SELECTION_SHARE * len(groups)))])
        splits = {
            "train": [each for each in train if each.group not in chosen],
            "selection": [each for each in train if each.group in chosen],
            "report": test,
        }
        return Table(splits, tuple(test[0].record["columns"]) if test else ())

    def _examples(self, rows: Sequence[tuple[str, str, Row]]) -> list[Example]:
        return [
            Example(
                id=_id(row),
                record={
                    "question": sentence,
                    "target": label,
                    "place": row.place,
                    "columns": dict(row.values),
                },
                group=hashlib.sha256(sentence.encode()).hexdigest()[:16],
            )
            for sentence, label, row in rows
        ]

    def _rank(self, group: str) -> str:
        return hashlib.sha256(f"{self.seed}/{group}".encode()).hexdigest()


def _id(row: Row) -> str:
    file, _, line = row.place.rpartition(":")
    return f"{stem(Path(file).name)}:{line}"
