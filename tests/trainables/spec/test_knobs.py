"""The knobs: one canonical configuration for all ways to write it."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.methods.registry import METHODS
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import (
    KNOBS,
    base_knobs,
    baseline_knobs,
    canonical,
    check,
    defaults,
    needs_ranks,
    simulated_values,
    step_examples,
    untrained_knobs,
    with_unsaid,
)
from trainables.spec.memory_effect import DOWN, UP, MemoryEffect, above
from trainables.spec.quantization import QUANTIZATIONS

WRONG: dict[str, list[Any]] = {
    "model": ["", None, 3],
    "quantization": ["int9", None, True],
    "double_quantization": [1, "yes"],
    "compute_dtype": ["fp8"],
    "method": ["lorra"],
    "rank": [0, -1, 1.5, "8", True, None],
    "alpha": [0, -1, "16", True, float("nan"), float("inf")],
    "dropout": [-0.1, 1.0, True],
    "target_modules": [[], [1], 3, {"a": 1}],
    "workers": [0, 1.5, "4", True],
    "zero_stage": [1, 4, "3", True, None],
    "offload": ["nvme", None],
    "blocks": [0, 1.5],
    "train_final_norm": ["on", 1],
    "train_head": ["on", 1],
    "learning_rate": [0, -1e-3, "1e-3", float("nan")],
    "batch_size": [0, 2.0, "automatic", True, None],
    "gradient_accumulation": [0, 1.5, "auto"],
    "effective_batch_size": [0, 2.5, "auto"],
    "optimizer": ["adam"],
    "schedule": ["step"],
    "warmup": [-0.1, 1.1],
    "weight_decay": [-0.1],
    "max_gradient_norm": [0],
    "gradient_checkpointing": ["on"],
    "sequence_length": [15, 100.0],
    "prompt": ["", 3],
    "target": ["", 3],
    "answer": ["guess", 1],
    "split_seed": [-1, 0.5],
    "context": ["retrievd", 1],
    "retriever": ["bm52", None],
    "k": [0, 2.5, "5"],
    "scope": ["web", 1],
    "chat_format": ["llama2", "own", 1],
    "shots": [-1, 0.5],
    "shot_selection": ["nearest", 1],
    "shot_seed": [-1, 0.5],
    "shots_too_long": ["cut", 1],
    "decoding": ["sampled", 1, None],
    "temperature": [0, -1, "1", True],
    "top_k": [-1, 0.5],
    "top_p": [0, 1.1, True],
    "beams": [0, 1, 65, 2.5],
    "length_penalty": [-0.1, "1"],
    "votes": [0, 1.5, True, 1001],
    "decoding_seed": [-1, 0.5],
    "shot_vectors": ["bert", 1],
    "seed": [-1, 1.5],
}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_default_is_accepted_and_already_canonical(knob: str) -> None:
    row = KNOBS[knob]
    if knob != "model":
        assert check(knob, row.default) is None
        assert row.convert(row.default) == row.default


@pytest.mark.parametrize("knob", KNOBS)
def test_every_wrong_value_is_refused_with_what_was_given(knob: str) -> None:
    for value in WRONG[knob]:
        message = check(knob, value)
        assert message is not None, value
        assert repr(value) in message


def test_an_unknown_knob_is_refused_with_a_guess() -> None:
    assert check("rnak", 8) == "unknown key. Did you mean 'rank'?"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_canonical_settles_once_and_for_all(method: str, quantization: str) -> None:
    given = {"model": "here", "method": method, "quantization": quantization}
    knobs = canonical(given)
    assert canonical(knobs) == knobs
    assert [*knobs] == [name for name in KNOBS if name in knobs]
    for name, row in KNOBS.items():
        assert (name in knobs) == (row.read_by({**given}) and not row.unsaid)


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_that_is_not_read_changes_nothing(knob: str) -> None:
    given = {"model": "here", "method": "untrained", "quantization": "none"}
    if KNOBS[knob].read_by({**defaults(), **given}):
        return
    other = next(
        value
        for value in (
            *(True, 0.5, 5, 3, "sgd", "linear", "cpu", "similar", "refuse", "base"),
            *("tfidf", "corpus", "beam"),
        )
        if check(knob, value) is None
    )
    assert canonical({**given, knob: other}) == canonical(given)


def test_numbers_and_lists_are_one_value_however_they_are_written() -> None:
    one = canonical({"model": "m", "alpha": 16, "target_modules": ["v_proj", "q_proj"]})
    other = canonical({"model": "m", "alpha": 16.0, "target_modules": ("q_proj", "v_proj")})
    assert one == other


def test_a_baseline_reads_nothing_of_training() -> None:
    knobs = canonical({"model": "m", "method": "untrained"})
    assert not {"rank", "learning_rate", "batch_size", "seed", "optimizer"} & set(knobs)


def test_an_automatic_batch_size_reads_what_a_step_is_over_and_an_explicit_one_how_it_is_made() -> (
    None
):
    given = {"model": "m", "gradient_accumulation": 4, "effective_batch_size": 32}
    explicit = canonical({**given, "batch_size": 8})
    automatic = canonical({**given, "batch_size": AUTO})
    assert "effective_batch_size" not in explicit and explicit["gradient_accumulation"] == 4
    assert "gradient_accumulation" not in automatic and automatic["effective_batch_size"] == 32
    assert canonical({"model": "m", "batch_size": AUTO})["effective_batch_size"] == 16
    assert (step_examples(explicit), step_examples(automatic)) == (32, 32)


def test_the_knobs_of_an_explicit_batch_size_are_what_they_were() -> None:
    """Trial ids hash them: a knob that came later must not change an older configuration."""
    assert [*canonical({"model": "m"})] == [
        "model", "quantization", "compute_dtype", "method", "rank", "alpha", "dropout",
        "target_modules", "learning_rate", "batch_size", "gradient_accumulation", "optimizer",
        "schedule", "warmup", "weight_decay", "max_gradient_norm", "gradient_checkpointing",
        "sequence_length", "prompt", "target", "seed",
    ]  # fmt: skip


def test_what_is_said_of_workers_is_kept_and_one_alone_says_nothing() -> None:
    alone = {"model": "m", "method": "full"}
    assert canonical({**alone, "workers": 1, "zero_stage": 0, "offload": "none"}) == canonical(
        alone
    )
    process_group = canonical({**alone, "workers": 4, "zero_stage": 3, "offload": "cpu"})
    assert (process_group["workers"], process_group["zero_stage"], process_group["offload"]) == (
        4,
        3,
        "cpu",
    )


def test_a_step_is_over_the_batches_of_all_workers() -> None:
    given = {"model": "m", "batch_size": 2, "gradient_accumulation": 3}
    assert step_examples(canonical(given)) == 6
    assert step_examples(canonical({**given, "workers": 4})) == 24


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, False),
        ({"workers": 1, "zero_stage": 0}, False),
        ({"workers": 2}, True),
        ({"zero_stage": 3}, True),
    ],
)
def test_several_workers_or_a_zero_stage_need_ranks(knobs: dict[str, Any], expected: bool) -> None:
    for method in ("full", "lora"):
        assert needs_ranks(canonical({"model": "m", "method": method, **knobs})) is expected
    assert not needs_ranks(canonical({"model": "m", "method": "untrained", **knobs}))


def test_a_wrong_batch_size_is_told_what_it_may_be() -> None:
    assert check("batch_size", "all") == "got 'all'; needs a whole number >= 1, or auto."


def test_unsaid_defaults_are_those_of_knobs_that_the_trial_reads() -> None:
    trained = with_unsaid(canonical({"model": "m", "workers": 4}))
    assert (trained["workers"], trained["zero_stage"], trained["offload"]) == (4, 0, "none")
    untrained = untrained_knobs({"model": "m", "rank": 8})
    assert with_unsaid(untrained) == {**untrained, "chat_format": "auto"}
    assert untrained["method"] == "untrained" and "rank" not in untrained


def test_what_a_baseline_reads_and_what_loads_a_base() -> None:
    assert baseline_knobs() == [
        "model",
        "quantization",
        "double_quantization",
        "compute_dtype",
        "method",
        "sequence_length",
        "prompt",
        "target",
        "answer",
        "split_seed",
        "context",
        "retriever",
        "k",
        "scope",
        "chat_format",
    ]
    assert base_knobs() == ["quantization", "double_quantization", "compute_dtype"]


def test_what_a_simulated_step_depends_on_besides_its_batches() -> None:
    """Another list makes the estimates void that older runs have cached."""
    found = dict(simulated_values(canonical({"model": "m", "dropout": 0.05})))
    assert found == {
        "quantization": "none",
        "double_quantization": None,
        "compute_dtype": "auto",
        "method": "lora",
        "rank": 8,
        "dropout": True,
        "target_modules": "all-linear",
        "optimizer": "adamw",
        "gradient_checkpointing": False,
    }


@pytest.mark.parametrize(
    ("effect", "one", "other", "expected"),
    [
        (UP, 2, 1, True),
        (UP, 1, 2, False),
        (UP, "a", 1, False),
        (DOWN, False, True, True),
        (DOWN, True, False, False),
        (DOWN, True, True, True),
        (above(1), 2, 8, True),
        (above(1), 1, 2, False),
        (above(1), 1, 1, True),
    ],
)
def test_a_memory_effect_orders_values(
    effect: MemoryEffect, one: Any, other: Any, expected: bool
) -> None:
    assert effect.is_ordered and effect.at_least is not None
    assert effect.at_least(one, other) is expected
