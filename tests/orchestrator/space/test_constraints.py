"""Exclusion rules remove configurations, and those are counted without enumeration."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.space.constraints import (
    Cell,
    cells,
    count,
    idle_rules,
    leaves_nothing,
    parse_rules,
    render_rules,
    surviving,
)
from orchestrator.space.enumeration import combinations, grid
from orchestrator.space.grammar import parse_space
from orchestrator.space.rules import excluded
from orchestrator.space.tree import questions
from tests.orchestrator import spaces
from trainables.errors import InputError


def test_a_rule_matches_when_all_of_its_knobs_do_and_a_list_matches_any() -> None:
    rules = parse_rules([{"rank": [4, 8], "quantization": "nf4"}])
    assert excluded({"rank": 8, "quantization": "nf4"}, rules)
    assert not excluded({"rank": 16, "quantization": "nf4"}, rules)
    assert not excluded({"rank": 8, "quantization": "none"}, rules)


def test_in_a_rule_too_a_list_of_module_names_is_one_value() -> None:
    rules = parse_rules([{"target_modules": ["q_proj", "v_proj"]}])
    assert excluded({"target_modules": ["q_proj", "v_proj"]}, rules)
    assert not excluded({"target_modules": ["q_proj"]}, rules)
    several = parse_rules([{"target_modules": ["all-linear", ["q_proj"]]}])
    assert excluded({"target_modules": ["q_proj"]}, several)
    assert parse_rules(render_rules([*rules, *several])) == (*rules, *several)


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


@given(spaces.varied, spaces.overlapping_rules)
@settings(max_examples=120, deadline=None)
def test_all_answers_are_those_of_trying_each_configuration(
    value: dict[str, Any], given_rules: list[dict[str, Any]]
) -> None:
    """By brute force: every combination, continuous ranges left out, against each rule."""
    space, rules = parse_space(value), parse_rules(given_rules)
    everything = [*combinations(space, lambda question: True)]
    left = [(found, ranges) for found, ranges in everything if not excluded(found, rules)]
    is_endless = any(ranges for _, ranges in left)
    assert count(space, rules) == (None if is_endless else len(left))
    assert leaves_nothing(space, rules) == (not left)
    assert cells(space, rules) == cells_of(everything, left)
    for names in (("model", "optimizer"), ("rank", "target_modules"), ("warmup",), ()):
        firsts: dict[str, dict[str, Any]] = {}
        for found, _ in left:
            firsts.setdefault(repr([found.get(name) for name in names]), found)
        assert [*surviving(space, rules, names)] == [*firsts.values()]
    ranges = {question.knob for question in questions(space) if question.answers is None}
    for place, rule in enumerate(rules):
        varied = {name: values for name, values in rule.items() if name not in ranges}
        is_idle = not any(excluded(found, [varied]) for found, _ in everything)
        assert is_idle == any(f"exclude[{place}]" in line for line in idle_rules(space, rules))


def cells_of(everything: Sequence[tuple[Any, Any]], left: Sequence[tuple[Any, Any]]) -> list[Cell]:
    def counts(items: Sequence[tuple[Any, Any]]) -> Counter[tuple[str, str, str]]:
        defaults = {"quantization": "none", "method": "lora"}
        completed = [{**defaults, **found} for found, _ in items]
        return Counter((one["model"], one["quantization"], one["method"]) for one in completed)

    kept = counts(left)
    return [Cell(*key, total, total - kept[key]) for key, total in counts(everything).items()]


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


WIDE = {name: {"integers": [1, 100]} for name in ("rank", "batch_size", "seed")}
LOW = [*range(1, 51)]


def test_a_million_configurations_are_counted_under_rules_over_integer_ranges() -> None:
    space = parse_space({"model": ["m", "n"], **WIDE})
    rules = parse_rules(
        [
            {"rank": LOW, "batch_size": LOW},
            {"batch_size": LOW, "seed": 1},
            {"model": "n", "seed": LOW},
        ]
    )
    per_seed_m = 100 * 100 - 50 * 50, 100 * 50  # rank x batch_size; those of seed 1
    of_m = 99 * per_seed_m[0] + per_seed_m[1]
    of_n = 50 * per_seed_m[0]  # seed 1 is out
    began = time.process_time()
    assert count(space, rules) == of_m + of_n
    assert [(cell.configurations, cell.excluded) for cell in cells(space, rules)] == [
        (1_000_000, 1_000_000 - of_m),
        (1_000_000, 1_000_000 - of_n),
    ]
    assert idle_rules(space, rules) == [] and not leaves_nothing(space, rules)
    (first, other) = surviving(space, rules, ["model"])
    assert (first["rank"], first["batch_size"], first["seed"]) == (1, 51, 1)
    assert (other["rank"], other["batch_size"], other["seed"]) == (1, 51, 51)
    assert time.process_time() - began < 1.0


def test_twelve_knobs_of_six_values_with_a_rule_each_are_counted_at_once() -> None:
    many = ("rank", "alpha", "learning_rate", "gradient_accumulation", "weight_decay", "batch_size",
            "max_gradient_norm", "seed", "workers")  # fmt: skip
    shares = [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    values: dict[str, list[Any]] = {name: [1, 2, 3, 4, 5, 6] for name in many}
    values |= {"warmup": shares, "dropout": shares, "sequence_length": [*range(16, 22)]}
    space = parse_space({"model": "m", **values})
    rules = parse_rules(
        [{one: values[one][0], two: values[two][0]} for one, two in itertools.pairwise(values)]
    )
    with_first, without = 1, 5  # of the knobs so far: the last has its first value, or another
    for _ in range(11):
        with_first, without = without, 5 * (with_first + without)
    began = time.process_time()
    assert count(space, rules) == with_first + without
    assert time.process_time() - began < 1.0


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
