"""Grid, random sampling and Optuna walk a space in the same way."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.space.enumeration import grid
from orchestrator.space.grammar import parse_space
from orchestrator.space.sampling import sample, suggest
from orchestrator.space.tree import Choice, Range, knob_names, questions, resolve
from tests.orchestrator import spaces
from trainables.errors import InputError
from trainables.spec import knobs


def _first(question: Any) -> Any:
    return question.options[0] if isinstance(question, Choice) else question.low


def _optuna_study(seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=3))


def test_a_configuration_is_flat_and_names_the_branch_taken() -> None:
    space = parse_space({"model": "small", "method": [{"lora": {"rank": [4, 8]}}], "batch_size": 2})
    assert resolve(space, _first) == {
        "model": "small",
        "method": "lora",
        "rank": 4,
        "batch_size": 2,
    }


def test_a_knob_inside_a_branch_overrides_the_top_level_and_is_asked_once() -> None:
    space = parse_space(
        {"model": ["a", {"b": {"batch_size": [8, 16]}}], "batch_size": [1, 2], "rank": 4}
    )
    sizes = [(found["model"], found["batch_size"]) for found in grid(space)]
    assert sizes == [("a", 1), ("a", 2), ("b", 8), ("b", 16)]


def test_a_knob_that_is_not_read_is_not_asked() -> None:
    space = parse_space(
        {"model": "m", "quantization": ["none", "nf4"], "double_quantization": [False, True]}
    )
    assert [found.get("double_quantization") for found in grid(space)] == [None, False, True]


def test_a_literal_list_is_one_value() -> None:
    space = parse_space(
        {"model": "m", "target_modules": ["all-linear", {"value": ["q_proj", "v_proj"]}]}
    )
    assert [found["target_modules"] for found in grid(space)] == [
        "all-linear",
        ["q_proj", "v_proj"],
    ]


def test_a_grid_walks_ranges_with_a_step() -> None:
    value = {"rank": {"integers": [4, 6]}, "dropout": {"uniform": [0, 0.15, 0.05]}}
    found = list(grid(parse_space({"model": "m", **value})))
    assert [configuration["rank"] for configuration in found[::4]] == [4, 5, 6]
    assert [configuration["dropout"] for configuration in found[:4]] == [0.0, 0.05, 0.1, 0.15]


def test_a_grid_over_continuous_ranges_is_refused_by_name() -> None:
    space = parse_space(
        {
            "model": "m",
            "method": {"lora": {"learning_rate": {"log_uniform": [1e-4, 1e-2]}}},
            "warmup": {"uniform": [0, 0.1]},
        }
    )
    with pytest.raises(InputError) as raised:
        grid(space)
    assert [message.split(":")[0] for message in raised.value.messages] == [
        "space.method.lora.learning_rate",
        "space.warmup",
    ]


def test_optuna_sees_stable_names_that_differ_from_branch_to_branch() -> None:
    value = {
        "model": ["a", {"b": {"learning_rate": {"uniform": [0.1, 0.2]}}}],
        "method": {"lora": {"rank": [4, 8]}},
        "learning_rate": [0.1, 0.2],
    }
    names = [question.name for question in questions(parse_space(value))]
    assert names == ["model", "model.b.learning_rate", "lora.rank", "learning_rate"]


def test_optuna_stores_values_where_it_can_and_positions_where_not() -> None:
    space = parse_space(
        {"model": "m", "rank": [4, 8], "target_modules": ["all-linear", {"value": ["q", "v"]}]}
    )
    labels = {
        question.knob: question.labels
        for question in questions(space)
        if isinstance(question, Choice)
    }
    assert labels == {"rank": [4, 8], "target_modules": [0, 1]}


@given(spaces.finite)
@settings(max_examples=60, deadline=None)
def test_a_grid_holds_each_trial_once(value: dict[str, Any]) -> None:
    found = [repr(knobs.canonical(configuration)) for configuration in grid(parse_space(value))]
    assert len(found) == len(set(found))


@given(spaces.finite, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_in_the_grid(value: dict[str, Any], seed: int) -> None:
    space = parse_space(value)
    assert sample(space, random.Random(seed)) in list(grid(space))


@given(spaces.varied, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_accepted_and_inside_its_ranges(value: dict[str, Any], seed: int) -> None:
    space = parse_space(value)
    configuration = sample(space, random.Random(seed))
    assert not [name for name in configuration if knobs.check(name, configuration[name])]
    assert set(configuration) <= knob_names(space)
    for question in questions(space):
        if isinstance(question, Range) and question.knob in configuration:
            number = configuration[question.knob]
            assert question.low <= number <= question.high
            assert question.answers is None or number in question.answers


@given(spaces.varied, st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_optuna_suggests_the_same_with_the_same_seed(value: dict[str, Any], seed: int) -> None:
    space = parse_space(value)

    def run() -> list[dict[str, Any]]:
        study, found = _optuna_study(seed), []
        for _ in range(5):
            trial = study.ask()
            found.append(suggest(space, trial))
            study.tell(trial, float(len(found)))
        return found

    first = run()
    assert first == run()
    for configuration in first:
        assert not [name for name in configuration if knobs.check(name, configuration[name])]


def test_a_log_range_is_drawn_even_in_its_logarithm() -> None:
    space = parse_space({"model": "m", "learning_rate": {"log_uniform": [1e-5, 1e-1]}})
    rng = random.Random(3)
    drawn = [math.log10(sample(space, rng)["learning_rate"]) for _ in range(2000)]
    below = sum(value < -3 for value in drawn) / len(drawn)
    assert below == pytest.approx(0.5, abs=0.05)


@given(spaces.varied)
@settings(max_examples=30, deadline=None)
def test_a_space_is_a_value(value: dict[str, Any]) -> None:
    space = parse_space(value)
    assert pickle.loads(pickle.dumps(space)) == space
    assert hash(parse_space(value)) == hash(space)
