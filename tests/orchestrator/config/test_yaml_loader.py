"""Ambiguous YAML is refused, and an unreadable file is reported with the reason and location."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from orchestrator.config.yaml_loader import parse_yaml, read_yaml, yaml_text
from trainables.errors import InputError


def _fault(text: str) -> str:
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "x.yaml")
    (fault,) = raised.value.messages
    return fault


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("-2E5", -2e5),
        ("1.0e-3", 1e-3),
        (".5e1", 5.0),
        ("3", 3),
        ("e5", "e5"),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("010.5", 10.5),
        ("00", 0),
        ("07", 7),
        (".inf", math.inf),
        ("0.05", 0.05),
    ],
)
def test_a_number_may_be_written_as_anyone_would(text: str, value: object) -> None:
    assert parse_yaml(text, "x") == value


@pytest.mark.parametrize("text", ["2024-05-01", "1:75", "llama3:8", "8:", "'010'", "'1:30'"])
def test_dates_times_and_what_is_quoted_are_text(text: str) -> None:
    expected = {"8:": {8: None}}.get(text, text.strip("'"))
    assert parse_yaml(text, "x") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "010 is 8 to YAML 1.1 and 10 to YAML 1.2. Write 10 or 8, or for text '010'"),
        ("-010", "-010 is -8 to YAML 1.1 and -10 to YAML 1.2. Write -10 or -8, "),
        ("08", "08 is text to YAML 1.1 and 8 to YAML 1.2. Write 8, or for text '08' in quotes."),
        ("0_10", "0_10 is 8 to YAML 1.1 and text to YAML 1.2. Write 10 or 8, "),
        ("1:30", "1:30 is 90 to YAML 1.1 and text to YAML 1.2. Write 1.5 or 90, or for text"),
        ("-1:30", "-1:30 is -90 to YAML 1.1 and text to YAML 1.2. Write -1.5 or -90, "),
        ("1:30:00", "1:30:00 is 5400 to YAML 1.1 and text to YAML 1.2. Write 1.5 or 5400, "),
        ("0:30.5", "0:30.5 is 30.5 to YAML 1.1 and text to YAML 1.2. Write "),
    ],
)
def test_a_number_of_two_readings_is_refused(text: str, message: str) -> None:
    assert _fault(text).startswith(f"x.yaml: line 1, column 1: {message}")
    assert _fault(f"a: [{text}]").startswith(f"x.yaml: line 1, column 5: {message}")


def test_all_numbers_of_two_readings_are_named_with_their_lines() -> None:
    text = "rank: [010, 16]\nlimits: {sweep_hours: 1:30,\n  trial_hours: 2:15}\n"
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "x.yaml")
    assert [fault.split(" is ")[0] for fault in raised.value.messages] == [
        "x.yaml: line 1, column 8: 010",
        "x.yaml: line 2, column 23: 1:30",
        "x.yaml: line 3, column 16: 2:15",
    ]


_TEXTS = ["010", "08", "1:30", "0o10", "0x1F", "1_000", "1e-3", "2024-05-01", "no", "yes", "~", ""]


@pytest.mark.parametrize("value", [*_TEXTS, 8, 1e-5, 1.5, math.inf, True, None, [], {"a": ["b"]}])
def test_what_is_written_is_read_again(value: object) -> None:
    assert parse_yaml(yaml_text({"a": value}), "x") == {"a": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "x.yaml: line 3, column 2: while parsing a flow sequence"),
        ("a: 1\n\tb: 2\n", "x.yaml: line 2, column 1: "),
        ("a: 1\nb: 2\na: 3\n", "x.yaml: line 3, column 1: duplicate key 'a' (first on line 1)."),
        ("s:\n  - lora: {rank: 1, rank: 2}\n", "line 2, column 21: duplicate key 'rank'"),
        (
            "a: !!python/object/apply:os.getcwd []\n",
            "x.yaml: line 1, column 4: could not determine",
        ),
        ("a: 1\n---\nb: 2\n", "x.yaml: line 2, column 1: expected a single document"),
        ("a: *b\n", "x.yaml: line 1, column 4: found undefined alias"),
        ("a: &a [*a]\n", "x.yaml: line 1, column 4: found unconstructable recursive node"),
        ("&a {x: *a}\n", "x.yaml: line 1, column 1: found unconstructable recursive node"),
        (
            "? [a]\n: 1\n",
            "x.yaml: line 1, column 3: while constructing a mapping, found unhashable",
        ),
        ("a: \x00", "x.yaml: unacceptable character"),
        ("[" * 1000, "x.yaml: is not YAML that can be read"),
    ],
)
def test_a_fault_names_its_line(text: str, message: str) -> None:
    assert message in _fault(text)


def test_a_merge_may_be_overridden() -> None:
    text = "base: &base {rank: 4, alpha: 8}\nmine: {<<: *base, rank: 8}\n"
    assert parse_yaml(text, "x") == {
        "base": {"rank": 4, "alpha": 8},
        "mine": {"rank": 8, "alpha": 8},
    }


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").touch()
    for given in ("quikstart.yaml", "quickstart"):
        with pytest.raises(InputError, match=r"no such file. Did you mean 'quickstart.yaml'\?"):
            read_yaml(tmp_path / given)
    with pytest.raises(InputError, match=r"no such file. Allowed: quickstart.yaml"):
        read_yaml(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/x.yaml", "no such file. There is no folder"),
        ("empty/x.yaml", "holds no YAML file."),
        ("empty", "is a folder; needs a YAML file."),
        ("latin.yaml", "is not UTF-8 text"),
        ("empty/" + "x" * 300, "can't be read: "),
        ("latin.yaml/x.yaml", "can't be read: "),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"task: caf\xe9\n")
    with pytest.raises(InputError, match=message):
        read_yaml(tmp_path / name)
