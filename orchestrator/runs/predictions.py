"""The predictions of trials, each file read once, as columns with an entry per question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from pathlib import Path
from typing import Any

from orchestrator.runs.trial_result import Split, TrialResult
from trainables.storage.trial_folder import TrialFolder
from trainables.storage.trial_reader import DAMAGED

Row = dict[str, Any]


@dataclass(frozen=True)
class Predictions:
    """What a trial answered to each question of a split, in the order of its file.

    A row that lacks the key of a column has None there.
    """

    ids: tuple[str, ...] = ()
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Predictions:
        """`rows` have ids that differ from one another."""
        columns = _columns(rows)
        ids = columns.pop("id", ())
        return cls(tuple(map(str, ids)), columns)

    def column(self, name: str) -> tuple[Any, ...]:
        return self.columns.get(name, (None,) * len(self.ids))

    def row(self, place: int) -> Row:
        """The answer at a place, by the names of the columns."""
        values = {name: column[place] for name, column in self.columns.items()}
        return {"id": self.ids[place], **values}

    def measured(self, metric: str) -> Predictions:
        """The answers for which `metric` is known."""
        values = self.column(metric)
        return self.only([value is not None for value in values]) if None in values else self

    def only(self, keep: Sequence[bool]) -> Predictions:
        """The answers at whose places `keep` is true."""
        columns = {name: tuple(compress(values, keep)) for name, values in self.columns.items()}
        return Predictions(tuple(compress(self.ids, keep)), columns)

    def at(self, ids: tuple[str, ...]) -> Predictions:
        """The answers to these questions, in their order; every one of them must be here."""
        if ids == self.ids:
            return self
        places = places_of(ids, self.ids)
        columns = {
            name: tuple([values[place] for place in places])
            for name, values in self.columns.items()
        }
        return Predictions(ids, columns)


class PredictionReader:
    """Reads the predictions of a run's trials, and keeps what it has read.

    Columns that are equal in several trials, as the questions are, are kept once.
    """

    def __init__(self) -> None:
        self._read: dict[tuple[str, Split], Predictions] = {}
        self._columns: dict[tuple[str, Split], tuple[Any, ...]] = {}

    def __call__(self, trial: TrialResult, split: Split = "selection") -> Predictions:
        """The trial's predictions on a split; none where `read_predictions` finds none."""
        key = (trial.trial_id, split)
        if key not in self._read:
            found = Predictions.of_rows(read_predictions(trial.folder, split)[0])
            columns = {
                name: self._shared(name, split, values) for name, values in found.columns.items()
            }
            self._read[key] = Predictions(self._shared("id", split, found.ids), columns)
        return self._read[key]

    def _shared(self, name: str, split: Split, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The column of the trial read before if it has the same values, else `values`."""
        if self._columns.get((name, split)) != values:
            self._columns[name, split] = values
        return self._columns[name, split]


def shared_ids(ids: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The ids that all sequences hold, in the order of the first."""
    if not ids or all(each == ids[0] for each in ids):
        return ids[0] if ids else ()
    shared = set(ids[0]).intersection(*ids[1:])
    return tuple([each for each in ids[0] if each in shared])


def places_of(ids: Sequence[str], among: Sequence[str]) -> list[int]:
    """The place in `among` of each id; raises KeyError for one that is not there."""
    places = {each: place for place, each in enumerate(among)}
    return [places[each] for each in ids]


def read_predictions(
    folder: TrialFolder, split: Split = "selection"
) -> tuple[list[Row], list[str]]:
    """The split's predictions, one row per question id, and warnings; none if there is no file.

    None either, and a warning, if the file is not the one that the trial's scores are of.
    """
    file = folder.predictions_file(split)
    try:
        if split == "report" and folder.report_score() is None:
            return [], []  # nothing says that the answers are whole
    except PermissionError:
        return [], []
    faults = folder.unusable_files([file.name])
    if faults:
        return [], [not_scored(*fault) for fault in faults.items()]
    try:
        text = file.read_text(encoding="utf-8")
        lines = text.split("\n")  # not splitlines: answers hold other line ends
    except (OSError, UnicodeDecodeError) as error:
        missing = isinstance(error, FileNotFoundError)
        return [], [] if missing else [f"{file}: {error}"]
    rows = _rows(lines if lines[-1] else lines[:-1])
    warnings = [
        f"{file}:{number}: not a prediction; left out"
        for number, row in enumerate(rows, start=1)
        if row is None
    ]
    return list({str(row["id"]): row for row in rows if row is not None}.values()), warnings


def not_scored(file: Path, fault: str) -> str:
    """The warning that a file of predictions can't be read or does not match the digest noted with
    its scores; `fault` is as in `TrialReader.unusable_files`."""
    why = ": not the answers that were scored" if fault == DAMAGED else ""
    return f"{file}: {fault}{why}; left out"


def _rows(lines: Sequence[str]) -> list[Row | None]:
    """The row in each line, or None for a line without one."""
    try:
        values = json.loads(f"[{','.join(lines)}]")  # faster than a call for each line
    except (ValueError, RecursionError):
        values = []
    if len(values) != len(lines):
        values = [_value(line) for line in lines]
    return [value if isinstance(value, dict) and "id" in value else None for value in values]


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _columns(rows: Sequence[Row]) -> dict[str, tuple[Any, ...]]:
    keys = tuple(rows[0]) if rows else ()
    if all(tuple(row) == keys for row in rows):  # as a rule: the same keys in the same order
        return dict(zip(keys, zip(*map(dict.values, rows), strict=True), strict=True))
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: tuple([row.get(name) for row in rows]) for name in names}
