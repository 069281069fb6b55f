"""What rules forbid is not gone through, in walks, in draws and in completions of a reference."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.planning.representatives import representatives
from orchestrator.search.searcher import Search
from orchestrator.space.constraints import cells, count, idle_rules, parse_rules, surviving
from orchestrator.space.enumeration import grid, grid_configurations
from orchestrator.space.grammar import parse_space
from orchestrator.space.partial import complete, has
from orchestrator.space.rules import excluded
from orchestrator.space.sampling import random_configuration
from orchestrator.space.tree import Range, plain, questions
from tests.orchestrator import spaces
from trainables.errors import InputError

HUNDRED = [*range(1, 101)]
WIDE: dict[str, Any] = {name: {"integers": [1, 100]} for name in ("rank", "batch_size", "seed")}
ENDLESS: dict[str, Any] = {"learning_rate": {"log_uniform": [1e-5, 1e-2]}}


@contextmanager
def _seconds(most: float) -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < most


def _sweep(rules: list[dict[str, Any]], algorithm: str = "tpe", **knobs: Any) -> SweepConfig:
    space: dict[str, Any] = {"model": "m", **knobs}
    return from_mapping(
        {
            "task": "finqa",
            "space": space,
            "exclude": rules,
            "budget": {"train_examples": 64, "eval_examples": 8},
            "search": {"algorithm": algorithm, "trials": 4},
            "scheduler": "none",
        }
    )


@given(spaces.finite, spaces.overlapping_rules)
@settings(max_examples=80, deadline=None)
def test_a_walk_under_rules_is_the_grid_without_what_they_exclude(
    value: dict[str, Any], given_rules: list[dict[str, Any]]
) -> None:
    space, rules = parse_space(value), parse_rules(given_rules)
    left = [found for found in grid(space) if not excluded(found, rules)]
    assert [found for found, _ in grid_configurations(space, rules)] == left


@given(spaces.finite, spaces.overlapping_rules)
@settings(max_examples=40, deadline=None)
def test_whatever_is_left_can_be_given_and_drawn(
    value: dict[str, Any], given_rules: list[dict[str, Any]]
) -> None:
    space, rules = parse_space(value), parse_rules(given_rules)
    left = list(itertools.islice(grid_configurations(space, rules), 200))
    for found in left[:: max(1, len(left) // 3)]:
        assert complete(space, rules, found[0], "here") == found
    drawn = [random_configuration(space, random.Random(seed), rules) for seed in range(20)]
    assert not any(excluded(found[0], rules) for found in drawn if found)
    assert left or not any(drawn)


@given(spaces.varied)
@settings(max_examples=40, deadline=None)
def test_an_answer_is_found_by_its_value(value: dict[str, Any]) -> None:
    for question in questions(parse_space(value)):
        for place, answer in enumerate(question.answers or ()):
            written = answer if isinstance(answer, int | float) else plain(answer.value)
            assert question.place(written) == place
        assert question.place("no such value") is None


def test_the_numbers_of_a_range_are_not_kept() -> None:
    fine = Range("warmup", "warmup", "uniform", 0.0, 1.0, 1e-12)
    coarse = Range("warmup", "warmup", "uniform", 0.0, 1.0, 0.1)
    seeds = Range("seed", "seed", "integers", 0, 2**31 - 1)
    assert fine.place(3 * 0.1) == 300_000_000_000 and coarse.place(3 * 0.1) == 3
    assert coarse.place(0.31) is None and coarse.place(1.1) is None
    assert seeds.place(2.0**30) == 2**30 and seeds.place(-1) is None and seeds.place(True) is None
    space = parse_space({"model": "m", "seed": {"integers": [0, 2**31 - 1]}})
    rules = parse_rules([{"seed": [0, 1, 7]}])
    with _seconds(0.5):
        assert count(space, rules) == 2**31 - 3
        assert next(iter(surviving(space, rules, ["model"])))["seed"] == 2
        assert next(grid_configurations(space, rules))[0]["seed"] == 2


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
def test_a_space_with_rules_over_integer_ranges_is_planned_in_seconds(algorithm: str) -> None:
    rules: list[dict[str, Any]] = [
        {"rank": HUNDRED[:90]},
        {"batch_size": HUNDRED[:99], "seed": HUNDRED[1:]},
        {"quantization": "nf4", "rank": 100},
    ]
    with _seconds(4.0):
        config = _sweep(rules, algorithm=algorithm, quantization=["none", "nf4"], **WIDE)
        assert count(config.space, config.exclude) == (10 + 9) * (99 + 100)
        assert len(cells(config.space, config.exclude)) == 2 == len(representatives(config))
        assert idle_rules(config.space, config.exclude) == []
        search = Search(config)
        assert algorithm != "grid" or search.propose() is not None
        assert sum(1 for _ in search.unseen(lambda _: False)) == (10 + 9) * (99 + 100)


def test_rules_that_leave_one_in_a_million_of_a_space_without_end_do_not_exhaust_it() -> None:
    rules: list[dict[str, Any]] = [{"rank": HUNDRED[1:]}, {"batch_size": HUNDRED[1:]}]
    config = _sweep([*rules, {"seed": HUNDRED[1:]}], **WIDE, **ENDLESS)
    with _seconds(3.0):
        assert Search(config).is_endless
        for found, _ in itertools.islice(Search(config).unseen(lambda _: False), 2):
            assert (found["rank"], found["batch_size"], found["seed"]) == (1, 1, 1)
        (cell,) = representatives(config).values()
    assert cell.typical["rank"] == 1


def test_a_cell_of_which_almost_nothing_is_left_has_a_representative() -> None:
    rules = [{"quantization": "nf4", name: HUNDRED[:99]} for name in ("rank", "batch_size", "seed")]
    found = representatives(_sweep(rules, quantization=["none", "nf4"], **WIDE))
    nf4 = found[("m", "nf4", "lora")].smallest
    assert (nf4["rank"], nf4["batch_size"], nf4["seed"]) == (100, 100, 100)


def test_a_reference_that_rules_forbid_is_said_at_once() -> None:
    names = ("rank", "alpha", "gradient_accumulation", "workers", "seed")
    space = parse_space({"model": "m", **dict.fromkeys(names, HUNDRED[:30])})
    rules = parse_rules([{"rank": 3}, dict.fromkeys(names, 30)])
    with _seconds(0.5), pytest.raises(InputError, match=r"exclude\[0\] forbids it"):
        complete(space, rules, {"rank": 3}, "search.reference")
    with _seconds(0.5):
        assert has(complete(space, rules, {"rank": 30}, "here")[0], {"rank": 30, "seed": 1})


def test_rules_that_overlap_in_too_many_ways_are_refused_in_seconds() -> None:
    names = ("rank", "batch_size", "seed", "alpha", "gradient_accumulation", "workers")
    chance = random.Random(1)
    rules = [
        {name: chance.sample(HUNDRED, 33) for name in chance.sample(names, 3)} for _ in range(40)
    ]
    with _seconds(8.0), pytest.raises(InputError, match="40 rules over 6 knobs overlap in too"):
        _sweep(rules, "tpe", **dict.fromkeys(names, HUNDRED))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"seed": {"integers": [0, 10**20]}}, "has more than 2^53 numbers; needs a larger step."),
        ({"warmup": {"uniform": [0, 1, 1e-18]}}, "more than 2^53 numbers; needs a larger step."),
        ({"weight_decay": {"uniform": [0, 10**400]}}, "needs numbers."),
        ({"weight_decay": 10**400}, "needs a number >= 0."),
        ({"weight_decay": {"uniform": [0, float("inf")]}}, "got inf; needs a number >= 0."),
    ],
)
def test_a_range_beyond_floats_is_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_space({"model": "m", **knobs})
    assert raised.value.messages[0].endswith(message)
