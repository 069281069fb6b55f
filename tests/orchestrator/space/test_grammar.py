"""What the grammar of a search space accepts, and its errors for everything else."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from orchestrator.space.enumeration import grid
from orchestrator.space.grammar import parse_space, render
from tests.orchestrator import spaces
from trainables.errors import InputError


def _faults(value: Any) -> list[str]:
    with pytest.raises(InputError) as raised:
        parse_space(value)
    return list(raised.value.messages)


@given(spaces.varied)
@settings(max_examples=60, deadline=None)
def test_a_space_written_and_read_again_is_the_same(value: dict[str, Any]) -> None:
    space = parse_space(value)
    text = yaml.safe_dump(render(space), sort_keys=False)
    assert parse_space(yaml.safe_load(text)) == space


@pytest.mark.parametrize("method", ["lora", ["lora"], {"lora": {}}, {"lora": None}, [{"lora": {}}]])
def test_a_branch_without_knobs_may_be_written_in_many_ways(method: Any) -> None:
    assert render(parse_space({"model": "m", "method": method}))["method"] in (
        "lora",
        ["lora"],
        {"lora": {}},
        [{"lora": {}}],
    )


def test_a_range_ends_at_its_last_step() -> None:
    value = {"rank": {"integers": [4, 18, 4]}, "dropout": {"uniform": [0, 0.17, 0.05]}}
    assert render(parse_space({"model": "m", **value})) == {
        "model": "m",
        "rank": {"integers": [4, 16, 4]},
        "dropout": {"uniform": [0.0, 0.15, 0.05]},
    }


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (["q_proj", "v_proj"], [["q_proj", "v_proj"]]),
        (["q_proj"], [["q_proj"]]),
        ({"value": ["q_proj", "v_proj"]}, [["q_proj", "v_proj"]]),
        (["all-linear"], ["all-linear"]),
        (["all-linear", ["q_proj", "v_proj"]], ["all-linear", ["q_proj", "v_proj"]]),
        (["all-linear", {"value": ["q_proj"]}], ["all-linear", ["q_proj"]]),
        ([["q_proj"], ["k_proj", "v_proj"]], [["q_proj"], ["k_proj", "v_proj"]]),
        ("all-linear", ["all-linear"]),
    ],
)
def test_a_list_of_module_names_is_one_value(written: Any, values: list[Any]) -> None:
    space = parse_space({"model": "m", "target_modules": written})
    assert [found["target_modules"] for found in grid(space)] == values
    assert parse_space(yaml.safe_load(yaml.safe_dump(render(space)))) == space


FAULTS = [
    ({"target_modules": [["q_proj"], ["q_proj"]]}, "space.target_modules: ('q_proj',) is there"),
    ({"rnak": 4}, "space.rnak: unknown key. Did you mean 'rank'?"),
    (
        {"method": [{"lora": {"rnak": 4}}]},
        "space.method.lora.rnak: unknown key. Did you mean 'rank'?",
    ),
    ({"quantization": "nf5"}, "space.quantization: got 'nf5'. Did you mean 'nf4'?"),
    ({"quantization": ["none", False]}, "put a name in quotes"),
    ({"quantization": [None]}, "put a name in quotes"),
    ({"method": ["loar"]}, "space.method: got 'loar'. Did you mean 'lora'?"),
    ({"method": [{"loar": {"rank": 4}}]}, "space.method: got 'loar'. Did you mean 'lora'?"),
    ({"method": "untrained"}, "space.method: untrained is run by itself on every model"),
    ({"rank": []}, "space.rank: the list is empty"),
    ({"rank": [4, 8, 4.5]}, "space.rank: got 4.5; needs a whole number >= 1."),
    ({"rank": [4, 8, 4]}, "space.rank: 4 is there twice"),
    (
        {"rank": [[4, 8]]},
        "space.rank: [4, 8] is a list in a list. For a literal list: {value: [...]}",
    ),
    ({"rank": 0}, "space.rank: got 0; needs a whole number >= 1."),
    ({"learning_rate": "1e-3"}, "needs a number > 0. That is text: remove the quotes."),
    (
        {"learning_rate": {"log_uniform": [1e-2, 1e-3]}},
        "which is upside down or empty; needs low < high",
    ),
    ({"learning_rate": {"log_uniform": [0, 1e-3]}}, "a logarithmic range needs low > 0"),
    ({"learning_rate": {"log_uniform": [1e-3]}}, "needs [low, high]."),
    ({"learning_rate": {"log_uniform": [1e-4, 1e-3, 2]}}, "needs [low, high]."),
    ({"learning_rate": {"log_uniform": 1e-3}}, "got 0.001; needs [low, high]."),
    ({"learning_rate": {"log_uniform": ["a", 1]}}, "got 'a' in ['a', 1]; needs numbers."),
    ({"learning_rate": {"uniform": [float("nan"), 1]}}, "needs low < high"),
    ({"learning_rate": {"uniform": [0.1, float("inf")]}}, "got inf; needs a number > 0."),
    ({"learning_rate": {"loguniform": [1e-4, 1e-3]}}, "Did you mean 'log_uniform'?"),
    ({"learning_rate": [{"uniform": [0.1, 0.2]}]}, "either a list of values or one range"),
    ({"dropout": {"uniform": [0.0, 1.5]}}, "space.dropout.uniform: got 1.5; needs a number >= 0"),
    ({"rank": {"uniform": [4, 8]}}, "rank takes whole numbers only. Use {integers: [low, high]}"),
    ({"rank": {"integers": [4, 8.5]}}, "got 8.5 in [4, 8.5]; needs whole numbers."),
    ({"rank": {"integers": [4, 8, 0]}}, "got 0 as step; needs a step > 0 and <= 4."),
    ({"rank": {"integers": [4, 5, 2]}}, "got 2 as step; needs a step > 0 and <= 1."),
    ({"rank": {"integers": [0, 8]}}, "space.rank.integers: got 0; needs a whole number >= 1."),
    ({"model": ["a", {"a": {"rank": 4}}]}, "space.model: 'a' is there twice"),
    ({"method": {"lora": {}, "full": {}}}, "For a choice of branches: [{lora: ...}, {full: ...}]"),
    ({"method": {}}, "space.method: the mapping is empty"),
    ({"method": {"lora": 4}}, "{lora: ...} is neither a range, a literal nor a branch."),
    ({"method": {"lora": {"method": "lora"}}}, "method is decided before method"),
    (
        {"quantization": {"nf4": {"model": "a"}}},
        "space.quantization.nf4.model: model is decided before",
    ),
    (
        {"quantization": [{"int8": {"double_quantization": True}}]},
        "space.quantization.int8.double_quantization: double_quantization is not read with",
    ),
    (
        {"batch_size": [4, {"auto": {"gradient_accumulation": 2}}]},
        "gradient_accumulation is not read with batch_size auto.",
    ),
    ({"batch_size": ["atuo"]}, "space.batch_size: got 'atuo'; needs a whole number >= 1, or auto."),
]


@pytest.mark.parametrize(("knobs", "message"), FAULTS, ids=[str(knobs) for knobs, _ in FAULTS])
def test_a_fault_says_where_what_and_what_is_allowed(knobs: dict[str, Any], message: str) -> None:
    (fault,) = _faults({"model": "m", **knobs})
    assert fault.startswith("space.")
    assert message in fault


def test_all_faults_are_said_at_once() -> None:
    faults = _faults({"rank": 0, "method": {"lora": {"alhpa": 3, "dropout": 2}}, "batch": [1]})
    places = [fault.split(":")[0] for fault in faults]
    assert places == [
        "space.rank",
        "space.method.lora.alhpa",
        "space.method.lora.dropout",
        "space.batch",
        "space.model",
    ]


@pytest.mark.parametrize("value", [[], "lora", 3])
def test_a_space_is_a_mapping(value: Any) -> None:
    assert "needs a mapping of knobs" in _faults(value)[0]
