"""Reads records from JSON files; errors name the line."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainables.errors import InputError

_NULS = 0.01  # text in UTF-16 has at least this share of them: line breaks, commas, quotes


def read_lines(path: str | Path, *, hint: str = "") -> Iterator[tuple[int, Any]]:
    """The JSON values of a file with their line numbers: the elements of one list, or one a line.

    An integer of more digits than int() accepts is read as an infinite float, as 1e999 is.
    Raises InputError if the file can't be read, is empty or is not JSON; `hint` ends the message if
    there is no such file.
    """
    text = read_text(Path(path), hint=hint)
    values = _list_values if text.lstrip().startswith("[") else _line_values
    empty = True
    try:
        for line, value in values(text):
            empty = False
            yield line, value
    except _MalformedError as error:
        raise InputError(f"{path}:{error.line}: not valid JSON: {error}") from error
    if empty:
        raise InputError(f"{path}: the file holds no records.")


class _MalformedError(ValueError):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def half_character_faults(record: Any, *, where: str) -> list[str]:
    """The fields of a record with half a surrogate pair, which is no character: no tokenizer takes
    it, and no file can be written with it. JSON can hold it as an escape.
    """
    fields = record.items() if isinstance(record, dict) else [("the record", record)]
    return [
        f"{where}: {name} has half of a character ({found}), which can't be encoded. Replace it."
        for name, value in fields
        if (found := _half_character(value))
    ]


def _half_character(value: Any) -> str:
    """The escape of the first lone surrogate in any text of a JSON value, or ""."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"\\u{ord(value[error.start]):04x}"
        return ""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in inner if (found := _half_character(each))), "")


def read_text(path: Path, *, hint: str = "") -> str:
    """The text of a file in UTF-8, perhaps gzipped, whatever its name.

    Raises InputError if there is none (`hint` ends the message), or with the line that is not
    UTF-8; UTF-16 is told apart, with or without the mark at its beginning.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.{hint}") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path}: the file can't be read: {error}") from error
    _refuse_utf_16(path, content)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: the file can't be read: not UTF-8 ({error.reason} at byte "
            f"{error.start}). Save the file in UTF-8, as by: iconv -f latin1 -t utf-8"
        ) from error


def _refuse_utf_16(path: Path, content: bytes) -> None:
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if not content.startswith(marks) and content.count(0) <= _NULS * len(content):
        return
    first = 0 if content.startswith(marks) else content.index(0)
    order = "" if content.startswith(marks) else ("be", "le")[first % 2]
    line = content.count(b"\n", 0, first) + 1
    raise InputError(
        f"{path}:{line}: the file can't be read: it seems to be in UTF-16. Save the file in UTF-8, "
        f"as by: iconv -f utf-16{order} -t utf-8"
    )


def _line_values(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line, parse_int=_integer)
            except (json.JSONDecodeError, RecursionError) as error:
                raise _MalformedError(number, str(error)) from error


def _list_values(text: str) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list one by one, because json.loads does not give their lines."""
    decoder = json.JSONDecoder(parse_int=_integer)
    position, line = text.index("[") + 1, 1 + text.count("\n", 0, text.index("["))
    wanted_comma, may_end = False, True
    while True:
        start = _skip_space(text, position)
        line, position = line + text.count("\n", position, start), start
        character = text[position : position + 1]
        if character == "]" and may_end and not text[position + 1 :].strip():
            return
        if wanted_comma and character != ",":
            raise _MalformedError(line, "a comma or the end of the list is missing")
        if wanted_comma:
            position, wanted_comma, may_end = position + 1, False, False
            continue
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise _MalformedError(error.lineno, str(error)) from error
        except RecursionError as error:
            raise _MalformedError(line, str(error)) from error
        yield line, value
        line, position, wanted_comma = line + text.count("\n", position, end), end, True
        may_end = True


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _integer(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:  # more than 4,300 digits
        return float(digits)
