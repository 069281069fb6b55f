"""Ambiguous YAML is refused, and an unreadable file is reported with the reason and location."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.yaml_loader import parse_yaml, read_yaml
from trainables.errors import InputError


def _fault(text: str) -> str:
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "x.yaml")
    (fault,) = raised.value.messages
    return fault


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("1.0e-3", 1e-3), (".5e1", 5.0), ("3", 3), ("e5", "e5")],
)
def test_a_number_may_be_written_as_anyone_would(text: str, value: object) -> None:
    assert parse_yaml(text, "x") == value


def test_a_date_is_text() -> None:
    assert parse_yaml("2024-05-01", "x") == "2024-05-01"


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
