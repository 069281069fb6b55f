"""Table: the rows of a user's files by split, with the columns that a task reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainables.errors import InputError
from trainables.hub_data import HubData, fetched_split, resolved_commit
from trainables.tasks.own_data.options import Options
from trainables.tasks.own_data.rows import Row, missing_columns, read_rows, shortened
from trainables.tasks.own_data.splits import Splits, shared_inputs, shared_out
from trainables.tasks.own_data.values import column_faults, text_of
from trainables.tasks.splits import files_read, halve
from trainables.tasks.task import SPLITS, Example

INSTRUCTION = "instruction"  # which a column `input` follows
USUAL_COLUMNS = (  # pairs of input and target that are found without being named
    ("input", "target"),
    ("prompt", "completion"),
    (INSTRUCTION, "output"),
    ("question", "answer"),
    ("text", "label"),
    ("sentence", "label"),
    ("tokens", "tags"),
)
Prepared = Callable[[Sequence[Row]], list[Row]]
_Read = tuple[Splits, dict[str, str], list[str]]  # with the columns, and the faults of values


@dataclass(frozen=True)
class Table:
    """The examples of each split, the columns of the first row, and that of the target.

    A record has `question` (the input), `target` and `place`, and the row itself as `columns`.
    `faults` are those of single values and rows, for which no trial may use it.
    """

    splits: Mapping[str, Sequence[Example]]
    columns: tuple[str, ...]
    target_column: str = ""
    faults: tuple[str, ...] = ()

    def digest(self, split: str, read: Sequence[str]) -> str:
        """A sha256 of the split's inputs, targets and the columns `read`, in their order; whatever
        the rows are called, as files may be renamed."""
        digest = hashlib.sha256()
        for example in self.splits[split]:
            record = example.record
            columns = [record["columns"].get(name) for name in read]
            parts = [record["question"], record["target"], columns]
            digest.update(json.dumps(parts, default=str).encode() + b"\n")
        return digest.hexdigest()


def read_table(options: Options, *, prepared: Prepared = list) -> Table:
    """All splits, or the one that is asked; `prepared` makes the rows that count of a file's.

    Raises InputError with all faults of files that are no table with the columns, or leave a split
    without rows.
    """
    splits, columns, faults = (_files if options.file is None else _one_file)(options, prepared)
    if not options.allow_duplicates and not faults:
        faults += shared_inputs(splits, input_of(columns))
    names = _file_names(options)
    examples = {
        split: [_example(row, columns, names, split) for row in rows]
        for split, rows in splits.items()
    }
    first = next((rows[0] for rows in splits.values() if rows), None)
    faults += _repeated_ids(examples)
    target = columns.get("target", "")
    return Table(examples, tuple(first.values) if first else (), target, tuple(faults))


def found_columns(rows: Sequence[Row], given: Mapping[str, str]) -> dict[str, str]:
    """The columns of input, target and perhaps id: those that are named, else the usual ones.

    Raises InputError if there are none, with the columns that there are.
    """
    there = list(rows[0].values) if rows else []
    usual = next((pair for pair in USUAL_COLUMNS if set(pair) <= set(there)), None)
    found = dict(zip(("input", "target"), usual, strict=True)) if usual else {}
    columns = {**found, **given}
    missing = [f"data.columns.{name}" for name in ("input", "target") if name not in columns]
    if missing and rows:
        raise InputError(
            f"{' and '.join(missing)}: missing, and {rows[0].place} has no columns of the usual "
            f"names; it has {', '.join(map(str, there))}."
        )
    return columns


def hub_data(options: Options) -> HubData | None:
    """The data set of the hub that the options name, if they do.

    Raises InputError if its revision is no commit and the hub can't be asked for one.
    """
    if options.hub is None:
        return None
    named = (options.file, options.train, options.selection, options.report)
    return HubData(
        name=options.hub,
        revision=resolved_commit(options.hub, options.revision or "main"),
        splits=tuple(dict.fromkeys(name for name in named if name)),
        subset=options.subset,
    )


def _rows(options: Options, name: str, *, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a file, or of a split of the hub's data set."""
    data = hub_data(options)
    if data is None:
        return read_rows(name, columns=columns)
    rows = read_rows(fetched_split(data, name), columns=columns)
    return [replace(row, place=f"{data.name} {name}:{_place(row)}") for row in rows]


def _place(row: Row) -> str:
    """The place in its file: the line, or the row."""
    return row.place.rpartition(":")[2].strip()


def _one_file(options: Options, prepared: Prepared) -> _Read:
    assert options.file is not None and options.split is not None
    by = (options.split.by,) if options.split.by else ()
    rows = prepared(_rows(options, options.file, columns=by))
    if not rows:
        raise InputError(f"{options.file}: the file holds no rows.")
    columns = found_columns(rows, options.columns)
    faults = _value_faults(rows, columns)
    try:
        return shared_out(rows, options.split, input_of(columns)), columns, faults
    except InputError as error:
        raise InputError([*faults, *error.messages]) from error


def _files(options: Options, prepared: Prepared) -> _Read:
    splits: Splits = {split: [] for split in SPLITS}
    malformed: list[str] = []
    faults: list[str] = []
    columns: dict[str, str] = {}
    for split in files_read(options.asked, has_report=bool(options.report)):
        path = getattr(options, split)
        try:
            splits[split] = prepared(_rows(options, path)) if path else []
            if splits[split]:
                columns = columns or found_columns(splits[split], options.columns)
                faults += _value_faults(splits[split], columns)
            elif path:
                malformed.append(f"{path}: the file holds no rows.")
        except InputError as error:
            malformed += error.messages
    if malformed:
        raise InputError([*malformed, *faults])
    if not options.report and options.asked != "train":
        halves = halve(splits["selection"], input_of(columns), file=str(options.selection))
        splits["selection"], splits["report"] = halves
    return splits, columns, faults


def _value_faults(rows: Sequence[Row], columns: Mapping[str, str]) -> list[str]:
    """What is wrong with the values of these columns; raises InputError if rows lack one."""
    missing = list(missing_columns(rows, columns.values()))
    if missing:
        raise InputError(missing)
    return shortened([fault for name in columns.values() for fault in column_faults(rows, name)])


def input_of(columns: Mapping[str, str]) -> Callable[[Row], str]:
    """What the input of a row is; an `instruction` is followed by what `input` adds to it."""
    name = columns.get("input", "")

    def text(row: Row) -> str:
        found = text_of(row.values[name])
        more = text_of(row.values.get("input")) if name == INSTRUCTION else ""
        return f"{found}\n{more}" if more else found

    return text


def _file_names(options: Options) -> dict[str, str]:
    """For each split the beginning of its ids: its file's name, or its own."""
    report = options.report or options.selection
    files = {"train": options.train, "selection": options.selection, "report": report}
    names = {split: Path(file or options.file or "").name for split, file in files.items()}
    different = {Path(file).name for file in files.values() if file}
    several = {file for file in files.values() if file}
    return {split: split for split in SPLITS} if len(different) < len(several) else names


def _example(row: Row, columns: Mapping[str, str], names: Mapping[str, str], split: str) -> Example:
    text, target = input_of(columns)(row), text_of(row.values[columns["target"]])
    own = columns.get("id")
    place = _place(row).replace(" ", "")
    return Example(
        id=text_of(row.values[own]) if own else f"{names[split]}:{place}",
        record={
            "question": text,
            "target": target,
            "place": row.place,
            "columns": dict(row.values),
        },
        group=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


def _repeated_ids(examples: Mapping[str, Sequence[Example]]) -> list[str]:
    first: dict[str, str] = {}
    faults = []
    for example in (each for split in examples.values() for each in split):
        own = str(example.record["place"])
        place = first.setdefault(example.id, own)
        if place != own:
            faults.append(f"{own}: the id {example.id!r} is also that of {place}.")
    return shortened(faults)
