"""Memory of each worker of a trial, computed by hand for a model of a thousand parameters."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.resources.estimate import Estimate, FlopRates, Term
from trainables.resources.zero_memory import kept_bytes, sharded_eval_bytes, sharded_train_bytes
from trainables.spec.knobs import canonical

WEIGHTS, STATES, ACTIVATIONS, JUDGED = 4_000, 8_000, 500, 700
RATES = FlopRates(0, 0, 0)


def worker(**knobs: Any) -> int:
    prediction, given = _predicted(**knobs)
    return sharded_train_bytes(prediction, given)


def judged(**knobs: Any) -> tuple[int, int]:
    """What it holds for that, and what of the training it keeps meanwhile."""
    prediction, given = _predicted(**knobs)
    return sharded_eval_bytes(prediction, given), kept_bytes(prediction, given)


def _predicted(**knobs: Any) -> tuple[Estimate, dict[str, Any]]:
    there = WEIGHTS if knobs.get("gradient_accumulation", 1) > 1 else 0  # gradients, by then
    phases = {
        "loss": WEIGHTS + STATES + there + ACTIVATIONS,
        "backward_of_first_block": 2 * WEIGHTS + STATES + 100,
    }
    sizes = {"base": 0, "trained": WEIGHTS, "gradients": WEIGHTS, "optimizer_state": STATES}
    prediction = Estimate(
        train_memory_bytes=max(phases.values()),
        eval_memory_bytes=WEIGHTS + JUDGED,
        base_memory_bytes=0,
        device_memory_bytes=0,
        phases=phases,
        terms={name: Term(size, "a test's") for name, size in sizes.items()},
        train_flops_per_step=0,
        train_flops_per_token=0,
        eval_flops_per_batch=0,
        training=RATES,
        forward=RATES,
        depths=(2,),
    )
    full = {"model": "a", "method": "full", "compute_dtype": "bfloat16", **knobs}
    return prediction, canonical(full)


def test_alone_a_worker_holds_what_was_simulated() -> None:
    assert worker() == 2 * WEIGHTS + STATES + 100


def test_stage_2_splits_gradients_states_and_what_is_stepped_on() -> None:
    split = (WEIGHTS + STATES + WEIGHTS) // 4
    assert worker(workers=4, zero_stage=2) == WEIGHTS + split + WEIGHTS + ACTIVATIONS


def test_stage_3_splits_the_weights_too_and_gathers_some() -> None:
    split = (WEIGHTS + STATES + WEIGHTS) // 4
    expected = WEIGHTS // 4 + WEIGHTS + split + WEIGHTS + ACTIVATIONS
    assert worker(workers=4, zero_stage=3) == expected


def test_offloaded_states_are_not_on_the_device() -> None:
    expected = WEIGHTS // 4 + WEIGHTS + WEIGHTS // 4 + WEIGHTS + ACTIVATIONS
    assert worker(workers=4, zero_stage=3, offload="cpu") == expected


def test_all_answer_all_questions_but_stage_3_splits_the_weights_then_too() -> None:
    whole = WEIGHTS + JUDGED
    assert judged() == (whole, STATES)
    assert judged(workers=4) == (whole, STATES)
    split = (WEIGHTS + STATES + WEIGHTS) // 4
    assert judged(workers=4, zero_stage=2) == (whole, split)
    gathered = WEIGHTS // 4 + WEIGHTS
    assert judged(workers=4, zero_stage=3) == (gathered + JUDGED, split)
    assert judged(workers=4, zero_stage=3, offload="cpu") == (gathered + JUDGED, 0)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_gradients_that_a_micro_batch_adds_to_are_counted_once(stage: int) -> None:
    at_once = worker(workers=4, zero_stage=stage)
    assert worker(workers=4, zero_stage=stage, gradient_accumulation=4) == at_once


@pytest.mark.parametrize("stage", [2, 3])
def test_more_workers_hold_less_each(stage: int) -> None:
    sizes = [worker(workers=count, zero_stage=stage) for count in (2, 4, 8)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
