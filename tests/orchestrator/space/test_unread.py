"""A knob that nothing in its space reads is found, whatever decides that it is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from orchestrator.space.enumeration import combinations
from orchestrator.space.grammar import parse_space
from orchestrator.space.tree import knob_names
from orchestrator.space.unread import unread_knobs
from tests.orchestrator import spaces

LORA = {"lora": {"rank": [4, 8]}}


@pytest.mark.parametrize(
    ("knobs", "path", "reason"),
    [
        (
            {"batch_size": 4, "effective_batch_size": 16},
            "effective_batch_size",
            "no trial of this space reads it; it is read with method: lora or full and "
            "batch_size: auto. Leave it out.",
        ),
        (
            {"batch_size": "auto", "gradient_accumulation": [1, 2]},
            "gradient_accumulation",
            "it is read with method: lora or full and batch_size: a number.",
        ),
        (
            {"quantization": ["none", "int8"], "double_quantization": True},
            "double_quantization",
            "it is read with quantization: nf4 or fp4.",
        ),
        ({"method": "full", "rank": [4, 8]}, "rank", "it is read with method: lora."),
        (
            {"decoding": ["greedy", "beam"], "temperature": [0.7, 1.0]},
            "temperature",
            "it is read with answer: generate and decoding: sample or beam_sample. Leave it out.",
        ),
        (
            {"answer": "likelihood", "decoding": ["greedy", "sample"]},
            "decoding",
            "it is read with answer: generate. Leave it out.",
        ),
        ({"method": LORA, "rank": 16}, "rank", "every trial that reads rank has the value of a"),
        ({"model": [{"m": {"rank": 2}}, "n"], "method": LORA}, "model.m.rank", "every trial that"),
    ],
)
def test_what_no_trial_reads_is_named_with_the_reason(
    knobs: dict[str, Any], path: str, reason: str
) -> None:
    found = unread_knobs(parse_space({"model": "m", **knobs}))
    assert list(found) == [path]
    assert reason in found[path]


@pytest.mark.parametrize(
    "knobs",
    [
        {"batch_size": [4, "auto"], "effective_batch_size": 16, "gradient_accumulation": 2},
        {"quantization": ["none", "nf4"], "double_quantization": [True, False]},
        {"method": ["full", {"lora": {"alpha": 8}}], "rank": 16},
        {"decoding": ["greedy", {"sample": {"temperature": [0.7, 1.0], "votes": 3}}], "top_p": 0.9},
        {"answer": ["generate", "likelihood"], "decoding": ["greedy", {"beam": {"beams": 2}}]},
        {"model": [{"m": {"batch_size": 2}}, "n"], "batch_size": 4},
        {"learning_rate": {"log_uniform": [1e-5, 1e-3]}, "seed": {"integers": [0, 10**9]}},
    ],
    ids=repr,
)
def test_what_some_trial_reads_is_not(knobs: dict[str, Any]) -> None:
    assert unread_knobs(parse_space({"model": "m", **knobs})) == {}


@given(spaces.varied)
@settings(max_examples=60, deadline=None)
def test_a_knob_of_no_configuration_is_unread_and_every_other_is_read_somewhere(
    value: dict[str, Any],
) -> None:
    space = parse_space(value)
    everything = [*combinations(space, lambda question: True)]
    read = {name for found, left in everything for name in found}
    read |= {question.knob for _, left in everything for question in left}
    unread = {path.rpartition(".")[2] for path in unread_knobs(space)}
    assert knob_names(space) - read == unread - read
