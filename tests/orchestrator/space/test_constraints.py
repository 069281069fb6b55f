"""Exclusion rules remove configurations, and those are counted without enumeration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.space.constraints import (
    Cell,
    cells,
    count,
    excluded,
    idle_rules,
    leaves_nothing,
    parse_rules,
    render_rules,
    surviving,
)
from orchestrator.space.grammar import parse_space
from orchestrator.space.tree import grid
from tests.orchestrator import spaces
from trainables.errors import InputError


def test_a_rule_matches_when_all_of_its_knobs_do_and_a_list_matches_any() -> None:
    rules = parse_rules([{"rank": [4, 8], "quantization": "nf4"}])
    assert excluded({"rank": 8, "quantization": "nf4"}, rules)
    assert not excluded({"rank": 16, "quantization": "nf4"}, rules)
    assert not excluded({"rank": 8, "quantization": "none"}, rules)


def test_a_knob_that_is_absent_matches_nothing() -> None:
    assert not excluded({"model": "m"}, parse_rules([{"quantization": "none"}]))


def test_numbers_match_by_value() -> None:
    assert excluded({"alpha": 8}, parse_rules([{"alpha": 8.0}]))
    assert excluded({"dropout": 3 * 0.1}, parse_rules([{"dropout": 0.3}]))
    assert not excluded(
        {"double_quantization": True}, parse_rules([{"double_quantization": False}])
    )


@given(spaces.finite, spaces.rules)
@settings(max_examples=80, deadline=None)
def test_count_cells_and_what_survives_agree_with_the_grid(
    value: dict[str, Any], given_rules: list[dict[str, Any]]
) -> None:
    space, rules = parse_space(value), parse_rules(given_rules)
    everything = list(grid(space))
    left = [found for found in everything if not excluded(found, rules)]
    assert count(space) == len(everything)
    assert count(space, rules) == len(left)
    assert leaves_nothing(space, rules) == (not left)
    assert sum(cell.configurations for cell in cells(space, rules)) == len(everything)
    assert sum(cell.excluded for cell in cells(space, rules)) == len(everything) - len(left)
    names = ("model", "optimizer")
    bases = [[found.get(name) for name in names] for found in surviving(space, rules, names)]
    assert sorted(map(repr, bases)) == sorted(
        {repr([found.get(name) for name in names]) for found in left}
    )


def test_a_cell_with_all_excluded_is_still_listed() -> None:
    space = parse_space({"model": "m", "quantization": ["none", "nf4"], "rank": [4, 8, 16]})
    rules = parse_rules([{"quantization": "nf4", "rank": [4, 8, 16]}])
    assert cells(space, rules) == [Cell("m", "none", "lora", 3, 0), Cell("m", "nf4", "lora", 3, 3)]


def test_a_space_with_a_range_has_no_count_unless_its_rules_leave_the_range_out() -> None:
    value = {"model": ["a", {"b": {"warmup": {"uniform": [0, 0.1]}}}], "rank": [4, 8]}
    space = parse_space(value)
    assert count(space) is None
    assert count(space, parse_rules([{"model": "b"}])) == 2


def test_a_large_space_is_counted_at_once() -> None:
    many = list(range(1, 401))
    space = parse_space({"model": "m", "rank": many, "batch_size": many, "seed": many})
    assert count(space, parse_rules([{"rank": 1}])) == 399 * 400 * 400


def test_rules_that_match_nothing_are_named_and_allowed() -> None:
    value = {"rank": [4, 8], "batch_size": {"integers": [1, 8]}, "warmup": {"uniform": [0, 0.1]}}
    space = parse_space({"model": "m", **value})
    given_rules: list[dict[str, Any]] = [{"rank": 4}, {"rank": 64}, {"optimizer": "sgd"}]
    rules = parse_rules([*given_rules, {"batch_size": 2}, {"warmup": 0.05}])
    assert [line.split(":")[0] for line in idle_rules(space, rules)] == ["exclude[1]", "exclude[2]"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rank": 4}, "exclude: got {'rank': 4}; needs a list of rules"),
        (["full"], "exclude[0]: got 'full'; needs a mapping of knobs to values"),
        ([{}], "exclude[0]: got {}; needs a mapping"),
        ([{"rank": 4}, {"rnak": 4}], "exclude[1].rnak: unknown key. Did you mean 'rank'?"),
        ([{"quantization": ["nf4", "nf5"]}], "exclude[0].quantization: got 'nf5'. Did you mean"),
        ([{"rank": []}], "exclude[0].rank: the list is empty."),
    ],
)
def test_a_rule_that_cannot_be_read_is_an_error(value: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_rules(value)
    assert len(raised.value.messages) == 1
    assert message in raised.value.messages[0]


@given(spaces.rules)
def test_rules_written_and_read_again_are_the_same(given_rules: list[dict[str, Any]]) -> None:
    rules = parse_rules(given_rules)
    assert parse_rules(render_rules(rules)) == rules
