"""Partial configurations are completed, or refused with reasons."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from orchestrator.space.enumeration import grid_configurations
from orchestrator.space.grammar import parse_space
from orchestrator.space.partial import complete, has
from orchestrator.space.tree import Space
from tests.orchestrator import spaces
from trainables.errors import InputError

SPACE: dict[str, Any] = {
    "model": ["small", {"large": {"batch_size": [1, 2]}}],
    "quantization": ["none", {"nf4": {"double_quantization": [False, True]}}],
    "rank": [4, 8, 16],
    "alpha": {"integers": [1, 9]},
    "learning_rate": {"log_uniform": [1e-5, 1e-1]},
    "dropout": {"uniform": [0.0, 0.4]},
    "warmup": {"uniform": [0.0, 0.2, 0.05]},
    "batch_size": 4,
    "target_modules": ["all-linear", {"value": ["q_proj", "v_proj"]}],
}


def space() -> Space:
    return parse_space(SPACE)


def completed(*rules: dict[str, Any], **values: Any) -> dict[str, Any]:
    settled = tuple({name: (value,) for name, value in rule.items()} for rule in rules)
    return complete(space(), settled, values, "search.reference")[0]


def faults(*rules: dict[str, Any], **values: Any) -> list[str]:
    with pytest.raises(InputError) as raised:
        completed(*rules, **values)
    return list(raised.value.messages)


def test_what_is_left_out_is_a_first_option_or_the_middle_of_a_range() -> None:
    found = completed()
    assert (found["model"], found["quantization"], found["rank"]) == ("small", "none", 4)
    assert found["alpha"] == 5
    assert found["learning_rate"] == pytest.approx(1e-3)  # in the logarithm
    assert found["dropout"] == pytest.approx(0.2)
    assert found["warmup"] == pytest.approx(0.1)


def test_what_is_given_stands() -> None:
    values = {"model": "large", "batch_size": 2, "rank": 16, "learning_rate": 0.02}
    values |= {"quantization": "nf4", "double_quantization": True}
    assert has(completed(**values), values)


def test_a_literal_list_is_a_value() -> None:
    found = completed(target_modules=["q_proj", "v_proj"])
    assert found["target_modules"] == ["q_proj", "v_proj"]


def test_the_branch_that_a_knob_belongs_to_is_found() -> None:
    assert completed(double_quantization=True)["quantization"] == "nf4"
    assert completed(batch_size=1)["model"] == "large"


def test_a_knob_that_is_read_with_some_values_of_another_finds_them() -> None:
    parsed = parse_space({"model": "a", "batch_size": ["auto", 4], "gradient_accumulation": [1, 2]})
    found, _ = complete(parsed, (), {"gradient_accumulation": 2}, "here")
    assert found["batch_size"] == 4


def test_what_an_exclusion_forbids_is_avoided_where_it_can_be() -> None:
    assert completed({"rank": 4})["rank"] == 8
    assert completed({"quantization": "none", "rank": 16}, rank=16)["quantization"] == "nf4"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rnak": 4}, "search.reference.rnak: unknown key. Did you mean 'rank'?"),
        ({"schedule": "linear"}, "search.reference.schedule: not a knob of this space."),
        ({"rank": 5}, "search.reference.rank: got 5; the space has 4, 8, 16."),
        ({"rank": True}, "search.reference.rank: got True; the space has 4, 8, 16."),
        ({"batch_size": 3}, "batch_size: got 3; the space has 1, 2, or only 4."),
        ({"learning_rate": 1}, "learning_rate: got 1; the space has 1e-05 to 0.1."),
        ({"warmup": 0.07}, "warmup: got 0.07; the space has 0 to 0.2 in steps of 0.05."),
        ({"dropout": math.nan}, "dropout: got nan; the space has 0 to 0.4."),
        ({"rank": None}, "rank: got None; the space has 4, 8, 16."),
        (
            {"quantization": "none", "double_quantization": True},
            "no configuration of the space has quantization: none, double_quantization: True",
        ),
    ],
)
def test_a_fault_says_where_what_and_what_is_allowed(values: dict[str, Any], message: str) -> None:
    (fault,) = faults(**values)
    assert message in fault


def test_all_faults_are_said_at_once() -> None:
    assert len(faults(rnak=4, rank=5, model="medium")) == 3


def test_what_an_exclusion_forbids_names_the_rule() -> None:
    (fault,) = faults({"rank": 8}, {"rank": 4}, rank=4)
    assert fault.startswith("search.reference: exclude[1] forbids it: {'rank': (4,)}.")


def test_it_must_be_a_mapping() -> None:
    with pytest.raises(InputError, match="got 8; needs knobs and their values"):
        complete(space(), (), 8, "search.start_with[0]")


@drawn(value=spaces.finite, place=st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_every_configuration_of_a_space_can_be_given(value: dict[str, Any], place: int) -> None:
    parsed = parse_space(value)
    found = list(itertools.islice(grid_configurations(parsed), place + 1))[-1]
    assert complete(parsed, (), found[0], "here") == found
