"""Reads the rows of a data file: JSON lines, a JSON list, CSV, TSV, Parquet or a workbook.

Nothing is guessed and nothing is skipped: every fault of a file names its line.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import InputError, near_name
from trainables.tasks.records import half_character_faults, read_lines, read_text

_LONGEST_FIELD = 2**31 - 1  # csv limits a field to 128 KiB, which a page may exceed
_SEPARATORS = (",", ";", "\t", "|")  # of .csv; Excel writes ";" where "," is the decimal sign
_MOST_NAMED = 5  # faults of one kind that are listed; the others are counted


@dataclass(frozen=True)
class Row:
    """One record of a file: its columns by name, and where it stands, as `data.csv:12`."""

    values: Mapping[str, Any]
    place: str


def read_rows(path: str | Path, *, columns: Sequence[str] = ()) -> list[Row]:
    """The rows of a file, in its order; each has all of `columns`.

    The end of the name, before .gz, decides the format, one of FORMATS. A CSV file
    may be separated by commas, semicolons, tabs or bars; an empty field is an empty text. Raises
    InputError with all faults of the file: what is malformed, in another encoding than UTF-8, of
    another shape than a table, or without a column.
    """
    file = Path(path)
    rows = _reader(file)(file)
    faults = list(missing_columns(rows, columns))
    for row in rows:
        faults += half_character_faults(dict(row.values), where=row.place)
    if faults:
        raise InputError(shortened(faults))
    return rows


def missing_columns(rows: Sequence[Row], columns: Iterable[str], *, why: str = "") -> Iterator[str]:
    """A fault for each of `columns` that some rows of a file lack, at the first of them; `why`
    follows the column's name."""
    for name in dict.fromkeys(columns):
        lacking = [row for row in rows if name not in row.values]
        if lacking:
            there = [*map(str, lacking[0].values)]
            near = near_name(name, there)
            some = (
                f" {len(lacking)} of {len(rows)} rows lack it." if len(lacking) < len(rows) else ""
            )
            yield (
                f"{lacking[0].place}: no column {name!r}{why}; there are {', '.join(there)}."
                + (f" Did you mean {near!r}?" if near else "")
                + some
            )


def shortened(faults: Sequence[str]) -> list[str]:
    """The first faults of many, and how many others there are."""
    rest = len(faults) - _MOST_NAMED
    return [*faults[:_MOST_NAMED], *([f"... and {rest} others like these."] if rest > 0 else [])]


def _reader(file: Path) -> Callable[[Path], list[Row]]:
    ends = [end.lower() for end in file.suffixes]
    end = next((each for each in reversed(ends) if each != ".gz"), "")
    found = FORMATS.get(end)
    if found is None:
        raise InputError(
            f"{file}: its format can't be told from its name; it has to end in "
            f"{', '.join(FORMATS)}, or in one of them and .gz."
        )
    return found


def _json_rows(file: Path) -> list[Row]:
    lines = list(read_lines(file))
    faults = [
        f"{file}:{line}: holds {value!r:.60}; needs an object of columns."
        for line, value in lines
        if not isinstance(value, dict)
    ]
    if faults:
        raise InputError(shortened(faults))
    return [Row(value, f"{file}:{line}") for line, value in lines]


def _separated(*separators: str) -> Callable[[Path], list[Row]]:
    """Reads with the separator by which the first line has the most columns."""

    def rows(file: Path) -> list[Row]:
        csv.field_size_limit(_LONGEST_FIELD)
        text = read_text(file)
        first_line = text.partition("\n")[0]
        columns = {each: next(csv.reader([first_line], delimiter=each), []) for each in separators}
        separator = max(separators, key=lambda each: len(columns[each]))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        try:
            return list(_table(file, reader))
        except csv.Error as error:
            raise InputError(f"{file}:{reader.line_num}: {error}.") from error

    return rows


def _table(file: Path, reader: Any) -> Iterator[Row]:
    header: list[str] = next(reader, [])
    wrong = [name for name, count in Counter(header).items() if count > 1 or not name.strip()]
    if not header or wrong:
        raise InputError(
            f"{file}:1: the first line has to name the columns, each once; it holds {header!r:.200}"
        )
    faults, line = [], reader.line_num
    for values in reader:
        first, line = line + 1, reader.line_num
        if not values:
            continue  # a blank line
        if len(values) != len(header):
            faults.append(
                f"{file}:{first}: {len(values)} fields, and the first line names {len(header)} "
                f"columns ({', '.join(header)}). Quote a field that holds a separator."
            )
        else:
            yield Row(dict(zip(header, values, strict=True)), f"{file}:{first}")
    if faults:
        raise InputError(shortened(faults))


def _parquet_rows(file: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InputError(f"{file}: can't be read as Parquet: {error}") from error
    return [Row(row, f"{file}: row {at}") for at, row in enumerate(table.to_pylist(), start=1)]


def _xlsx_rows(file: Path) -> list[Row]:
    """The rows of the first sheet, of which the first names the columns."""
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(f"{file}: needs openpyxl: pip install openpyxl") from error
    from zipfile import BadZipFile

    try:
        sheet = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
        header, *lines = sheet.iter_rows(values_only=True)
    except (OSError, BadZipFile, KeyError, ValueError) as error:
        raise InputError(f"{file}: can't be read as a workbook: {error}") from error
    names = [str(name or "") for name in header]
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:
        raise InputError(f"{file}:1: names the column {', '.join(twice)} more than once.")
    return [
        Row(dict(zip(names, line, strict=True)), f"{file}:{at}")
        for at, line in enumerate(lines, start=2)
        if any(value is not None for value in line)
    ]


FORMATS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".json": _json_rows,
    ".csv": _separated(*_SEPARATORS),
    ".tsv": _separated("\t"),
    ".parquet": _parquet_rows,
    ".xlsx": _xlsx_rows,
}
