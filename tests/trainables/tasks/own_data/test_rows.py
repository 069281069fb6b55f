"""Rows of a user's files: the formats hold the same, and every fault names its line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from trainables.errors import InputError
from trainables.tasks.own_data.rows import FORMATS, read_rows

RECORDS = [
    {"text": 'He said: "up, by 5"', "label": "good"},
    {"text": "two\nlines, ünïcode 漢字", "label": "bad"},
]


def _write(file: Path) -> Path:
    kind = next(end for end in file.suffixes if end in FORMATS)
    if kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(RECORDS), file)
        return file
    if kind == ".xlsx":
        book = openpyxl.Workbook()
        for row in [list(RECORDS[0]), *(list(record.values()) for record in RECORDS)]:
            book.active.append(row)
        book.save(file)
        return file
    if kind == ".json":
        text = json.dumps(RECORDS, indent=1)
    elif kind in (".jsonl", ".ndjson"):
        text = "\n".join(map(json.dumps, RECORDS)) + "\n\n"
    else:
        text = _separated({".csv": ",", ".tsv": "\t"}[kind])
    content = text.encode()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)
    return file


def _separated(separator: str) -> str:
    import io

    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([list(RECORDS[0]), *(list(row.values()) for row in RECORDS)])
    return text.getvalue()


@pytest.mark.parametrize("name", [*(f"data{end}" for end in FORMATS), "x.csv.gz", "a.b.jsonl.gz"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = read_rows(_write(tmp_path / name), columns=["text"])
    assert [dict(row.values) for row in rows] == RECORDS
    assert all(row.place.startswith(str(tmp_path / name)) for row in rows)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_a_csv_file_may_have_another_separator(separator: str, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text(_separated(separator))
    assert [dict(row.values) for row in read_rows(file)] == RECORDS


def test_a_separator_in_the_name_of_a_column_is_none(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text('"text; in full",label\none,a\n')
    assert list(read_rows(file)[0].values) == ["text; in full", "label"]


def test_a_row_says_the_line_in_which_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text('text,label\n"one\ntwo",a\n\nthree,b\n')
    assert [row.place for row in read_rows(file)] == [f"{file}:2", f"{file}:5"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,label\none,a\ntwo\n", r"a\.csv:3: 1 fields, and the first line names 2"),
        ("a.csv", b"text,label\none,a,b\n", r"a\.csv:2: 3 fields"),
        ("a.csv", b"text,text\none,a\n", r"a\.csv:1: the first line has to name the columns, each"),
        ("a.csv", b'text,label\n"one,a\n', r"a\.csv:2: unexpected end of data"),
        (
            "a.csv",
            "text,label\none,a\nsmörgås,b\n".encode("latin-1"),
            r"a\.csv:3: the file can't be read: not UTF-8",
        ),
        ("a.csv", b"text,label\none,a\n", r"a\.csv:2: no column 'lable'; there are text, label\."),
        ("a.jsonl", b'{"lable": 1}\n[1, 2]\n', r"a\.jsonl:2: holds \[1, 2\]; needs an object"),
        ("a.jsonl", b'{"lable": 1}\n{"text"\n', r"a\.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"lable": "\\ud800"}\n', r"a\.jsonl:1: lable has half of a character"),
        ("a.jsonl", b"", r"a\.jsonl: the file holds no records"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet: can't be read as Parquet"),
        ("a.xls", b"", r"a\.xls: its format can't be told from its name; .*\.jsonl, .*\.parquet"),
        ("a.csv.gz", b"\x1f\x8bnothing", r"a\.csv\.gz: the file can't be read"),
    ],
)
def test_a_fault_is_named_with_its_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / name, columns=["lable"])


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.tsv.gz"])
@pytest.mark.parametrize("text", ["text,label\none,a\n", "标题,题\n上海市的公司,好\n" * 9])
@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16le"), ("utf-16-be", "utf-16be")],
)
def test_utf_16_is_told_apart_and_can_be_mended_as_advised(
    encoding: str, told: str, text: str, name: str, tmp_path: Path
) -> None:
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name[-2:] == "gz" else content)
    with pytest.raises(
        InputError,
        match=rf"^\S*{name}:1: the file can't be read: it seems to be in UTF-16\. .* -f {told} -t",
    ):
        read_rows(tmp_path / name)
    assert content.decode(told) == text


def test_a_workbook_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["text", "text", "label"], ["one", "two", "a"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(InputError, match=r"a\.xlsx:1: names the column text more than once"):
        read_rows(tmp_path / "a.xlsx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        read_rows(tmp_path / "none.csv")


def test_all_faults_are_told_at_once_and_many_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text,label\n" + "one\n" * 9)
    with pytest.raises(InputError) as error:
        read_rows(file)
    assert len(error.value.messages) == 6
    assert error.value.messages[-1] == "... and 4 others like these."


def test_a_field_may_be_as_long_as_a_report(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"text,label\n{'x' * 300_000},a\n")
    assert len(read_rows(file)[0].values["text"]) == 300_000
