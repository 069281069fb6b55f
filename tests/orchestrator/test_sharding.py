"""Specification of what each worker of a trial holds, by hand for a model of a thousand numbers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.sharding import sharded_train_bytes
from trainables.knobs import canonical
from trainables.prediction import FlopRates, Prediction, Term

WEIGHTS, STATES, ACTIVATIONS = 4_000, 8_000, 500
RATES = FlopRates(0, 0, 0)


def worker(**knobs: Any) -> int:
    phases = {
        "loss": WEIGHTS + STATES + ACTIVATIONS,
        "backward_of_first_block": 2 * WEIGHTS + STATES + 100,
    }
    sizes = {"base": 0, "trained": WEIGHTS, "gradients": WEIGHTS, "optimizer_state": STATES}
    prediction = Prediction(
        train_memory_bytes=max(phases.values()),
        eval_memory_bytes=0,
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
    return sharded_train_bytes(prediction, canonical(full))


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


@pytest.mark.parametrize("stage", [2, 3])
def test_more_workers_hold_less_each(stage: int) -> None:
    sizes = [worker(workers=count, zero_stage=stage) for count in (2, 4, 8)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
