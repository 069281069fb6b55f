"""Which configurations need at least as much memory as which others."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.search.memory_order import MemoryDemand, depends_on
from trainables.spec.knobs import KNOBS, canonical

MIDDLE: dict[str, Any] = {
    "model": "a",
    "quantization": "nf4",
    "rank": 8,
    "dropout": 0.1,
    "target_modules": ["q_proj", "v_proj"],
    "batch_size": 4,
    "gradient_accumulation": 1,
    "gradient_checkpointing": True,
    "sequence_length": 256,
}


def is_at_least(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return MemoryDemand.of(canonical({**MIDDLE, **one})).is_at_least(
        MemoryDemand.of(canonical({**MIDDLE, **other}))
    )


MORE = [
    {"batch_size": 5},
    {"sequence_length": 300},
    {"rank": 9},
    {"gradient_accumulation": 2},
    {"gradient_checkpointing": False},
    {"target_modules": ["k_proj", "q_proj", "v_proj"]},
    {"target_modules": "all-linear"},
    {"batch_size": 8, "rank": 16},
]


@pytest.mark.parametrize("more", MORE, ids=repr)
def test_more_of_a_memory_knob_needs_more(more: dict[str, Any]) -> None:
    assert is_at_least(more, {})
    assert not is_at_least({}, more)


def test_the_same_needs_the_same() -> None:
    assert is_at_least({}, {})


def test_more_of_one_and_less_of_another_is_not_comparable() -> None:
    assert not is_at_least({"batch_size": 8, "rank": 4}, {})
    assert not is_at_least({}, {"batch_size": 8, "rank": 4})


@pytest.mark.parametrize(
    "other",
    [
        {"model": "b"},
        {"quantization": "none"},
        {"quantization": "fp4"},
        {"double_quantization": True},
        {"compute_dtype": "float32"},
        {"optimizer": "sgd"},
        {"prompt": "program"},
    ],
    ids=repr,
)
def test_knobs_without_an_order_must_be_equal(other: dict[str, Any]) -> None:
    assert not is_at_least({"batch_size": 64}, other)
    assert not is_at_least({"batch_size": 64, **other}, {})


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 0.1},
        {"alpha": 99},
        {"seed": 5},
        {"warmup": 0.9},
        {"weight_decay": 1.0},
        {"schedule": "constant"},
        {"max_gradient_norm": 9.0},
    ],
    ids=repr,
)
def test_knobs_that_touch_no_memory_do_not_matter(other: dict[str, Any]) -> None:
    assert is_at_least(other, {})
    assert is_at_least({}, other)


def test_some_knobs_matter_only_by_whether_they_are_used() -> None:
    assert is_at_least({"gradient_accumulation": 2}, {"gradient_accumulation": 8})
    assert is_at_least({"dropout": 0.01}, {"dropout": 0.5})
    assert not is_at_least({"dropout": 0.0}, {"dropout": 0.5})


def test_more_beams_need_more_and_more_votes_do_not() -> None:
    beams = {"decoding": "beam", "beams": 4}
    assert is_at_least({**beams, "beams": 8}, beams)
    assert not is_at_least(beams, {**beams, "beams": 8})
    assert not is_at_least(beams, {})  # of other strategies nothing is known
    sample = {"decoding": "sample"}
    assert is_at_least(sample, {**sample, "votes": 9, "temperature": 0.1})
    assert is_at_least({**sample, "top_p": 0.5}, sample)
    assert not is_at_least(sample, {**sample, "top_p": 0.5})


def test_a_batch_that_shrinks_to_what_fits_was_refused_with_one_row() -> None:
    def automatic(**knobs: Any) -> MemoryDemand:
        return MemoryDemand.of(canonical({**MIDDLE, "batch_size": "auto", **knobs}))

    assert automatic(rank=64).is_at_least(automatic())
    assert not automatic().is_at_least(automatic(rank=64))
    assert automatic(effective_batch_size=2).is_at_least(automatic(effective_batch_size=32))
    assert not automatic(effective_batch_size=1).is_at_least(automatic(effective_batch_size=32))
    assert not MemoryDemand.of(canonical({**MIDDLE, "batch_size": 512})).is_at_least(automatic())


ORDERED = {
    "batch_size",
    "sequence_length",
    "shots",
    "beams",
    "top_k",
    "top_p",
    "rank",
    "effective_batch_size",
    "gradient_accumulation",
    "dropout",
    "gradient_checkpointing",
    "target_modules",
}
INDEPENDENT = {
    "alpha",
    "decoding_seed",
    "length_penalty",
    "temperature",
    "votes",
    "learning_rate",
    "max_gradient_norm",
    "schedule",
    "seed",
    "warmup",
    "weight_decay",
}


def test_what_memory_does_not_depend_on_and_what_orders_it_is_as_ever() -> None:
    """A new knob must be equal in two configurations until its row says otherwise."""
    assert {name for name, row in KNOBS.items() if row.memory.is_ordered} == ORDERED
    assert {name for name in KNOBS if not depends_on(name)} == INDEPENDENT
    assert depends_on("a knob of another version")
