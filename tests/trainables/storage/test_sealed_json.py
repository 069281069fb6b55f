"""A checksum matches one content in one place."""

from __future__ import annotations

import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.storage.sealed_json import DamagedError, verified, with_checksum

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6).filter(lambda name: name != "sha256"), _JSON))
def test_what_is_sealed_comes_back(value: dict[str, object]) -> None:
    for layout in (None, 2):
        text = json.dumps(with_checksum(value, place="a/b.json"), indent=layout)
        assert verified(text, place="a/b.json") == json.loads(json.dumps(value))


def test_keys_that_are_numbers_and_tuples_are_sealed_as_json_has_them() -> None:
    text = json.dumps(with_checksum({"a": {10: 1, 9: 2}, "b": (1, 2)}, place="x"))
    assert verified(text, place="x") == {"a": {"10": 1, "9": 2}, "b": [1, 2]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[1]",
        "{}",
        '{"a": 1}',
        "\ud800",
        "[" * 100_000,
        '{"a": ' + "9" * 6000 + "}",
    ],
)
def test_what_was_never_sealed_is_damaged(text: str) -> None:
    with pytest.raises(DamagedError, match="damaged"):
        verified(text, place="x")


def test_what_can_be_read_but_is_too_deep_to_be_digested_is_damaged() -> None:
    limit = sys.getrecursionlimit()
    for depth in range(limit - 200, limit + 1):
        with pytest.raises(DamagedError, match="damaged"):
            verified('{"a": ' + "[" * depth + "]" * depth + "}", place="x")


@pytest.mark.parametrize("change", [("0.25", "0.26"), ("loss", "lost"), ("true", "false")])
def test_another_digit_letter_or_word_breaks_the_seal(change: tuple[str, str]) -> None:
    text = json.dumps(with_checksum({"loss": 0.25, "done": True}, place="x"))
    with pytest.raises(DamagedError, match="does not match"):
        verified(text.replace(*change), place="x")


def test_a_seal_is_for_one_place() -> None:
    text = json.dumps(with_checksum({"em_acc": 0.5}, place="one/summary.json"))
    with pytest.raises(DamagedError, match="does not match"):
        verified(text, place="two/summary.json")


def test_bytes_that_are_no_text_are_damaged() -> None:
    with pytest.raises(DamagedError):
        verified(b"\xff\xfe\xfa", place="x")


def test_a_number_that_is_not_finite_can_be_sealed() -> None:
    text = json.dumps(with_checksum({"loss": math.inf}, place="x"))
    assert verified(text, place="x") == {"loss": math.inf}
