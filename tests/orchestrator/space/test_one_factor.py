"""One factor at a time: a reference, and all configurations that differ from it in one knob."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.space.grammar import parse_space
from orchestrator.space.one_factor import one_factor
from trainables.errors import InputError

SPACE: dict[str, Any] = {
    "model": "a",
    "quantization": ["none", {"nf4": {"double_quantization": [False, True], "rank": [2, 8]}}],
    "rank": [4, 8, 16],
    "batch_size": {"integers": [1, 9]},
    "learning_rate": {"log_uniform": [1e-4, 1e-2]},
}
REFERENCE = {"rank": 8, "batch_size": 3}
Rule = dict[str, tuple[Any, ...]]


def around(reference: dict[str, Any], *rules: Rule, **changed: Any) -> list[dict[str, Any]]:
    found = one_factor(parse_space({**SPACE, **changed}), rules, reference)
    return [configuration for configuration, _ in found]


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The knobs of `other` that `one` has not or has otherwise."""
    return {name: value for name, value in other.items() if one.get(name) != value}


def test_the_reference_comes_first_and_then_knob_by_knob_all_other_values() -> None:
    first, *others = around(REFERENCE)
    assert first["quantization"] == "none"
    assert (first["rank"], first["batch_size"]) == (8, 3)
    assert [differing(first, other) for other in others] == [
        {"quantization": "nf4", "double_quantization": False},
        {"rank": 4},
        {"rank": 16},
        {"learning_rate": 1e-4},
        {"learning_rate": pytest.approx(10**-3.5)},
        {"learning_rate": pytest.approx(10**-2.5)},
        {"learning_rate": 1e-2},
        {"batch_size": 1},
        {"batch_size": 5},
        {"batch_size": 7},
        {"batch_size": 9},
    ]


def test_a_branch_that_is_tried_has_the_references_values_where_it_can() -> None:
    other = around({"rank": 8})[1]
    assert (other["quantization"], other["rank"]) == ("nf4", 8)
    other = around({"rank": 16})[1]
    assert (other["quantization"], other["rank"]) == ("nf4", 2)  # it has no 16


def test_knobs_of_the_references_own_branch_are_varied() -> None:
    first, *others = around({"quantization": "nf4", "rank": 2})
    assert {"double_quantization": True} in [differing(first, other) for other in others]
    assert {"rank": 8} in [differing(first, other) for other in others]


def test_a_reference_between_two_levels_of_a_range_is_compared_with_all_five() -> None:
    rates = {found["learning_rate"] for found in around({"learning_rate": 2e-3})}
    assert len(rates) == 6


def test_what_an_exclusion_forbids_is_left_out() -> None:
    found = around(REFERENCE, {"rank": (16,)}, {"quantization": ("nf4",)})
    assert {each["rank"] for each in found} == {4, 8}
    assert {each["quantization"] for each in found} == {"none"}


def test_it_ends_and_has_nothing_twice() -> None:
    found = around(REFERENCE)
    assert len(found) == len({repr(each) for each in found})


def test_a_reference_must_lie_in_the_space_and_be_admissible() -> None:
    with pytest.raises(InputError, match=r"search.reference.rank: got 5"):
        around({"rank": 5})
    with pytest.raises(InputError, match=r"search.reference: exclude\[0\] forbids it"):
        around({"rank": 8}, {"rank": (8,)})
