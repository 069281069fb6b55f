"""Combinations of knobs that no machine can run are refused, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.methods.registry import METHODS
from trainables.spec.constraints import violations
from trainables.spec.knobs import canonical
from trainables.spec.quantization import QUANTIZATIONS


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
def test_a_quantized_base_is_not_trained_in_full(quantization: str) -> None:
    reason = _reason(method="full", quantization=quantization)
    assert reason.startswith(f"method full trains the weights themselves, and {quantization}")
    assert "Use quantization: none, or method: lora." in reason


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
def test_a_quantized_base_is_not_split(quantization: str) -> None:
    reason = _reason(quantization=quantization, zero_stage=3, workers=2)
    assert reason.startswith("zero_stage 3 splits every weight")
    assert violations(_knobs(quantization=quantization, zero_stage=2, workers=2)) is None


@pytest.mark.parametrize(
    ("knobs", "begins"),
    [
        ({"offload": "cpu"}, "offload: cpu is done by ZeRO"),
        ({"workers": 2, "batch_size": "auto"}, "batch_size: auto"),
        ({"workers": 2, "optimizer": "paged_adamw_8bit"}, "optimizer paged_adamw_8bit"),
        ({"zero_stage": 2, "compute_dtype": "float16"}, "zero_stage is not supported with float16"),
    ],
)
def test_what_several_workers_can_not_do_is_refused(knobs: dict[str, Any], begins: str) -> None:
    assert _reason(method="full", **knobs).startswith(begins)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_all_else_is_possible(method: str, quantization: str) -> None:
    if quantization != "none" and not METHODS[method].allows_quantized_base:
        return
    assert violations(_knobs(method=method, quantization=quantization)) is None
    assert violations(_knobs(method=method, quantization=quantization, workers=4)) is None
    sharded = _knobs(
        method=method, quantization=quantization, workers=4, zero_stage=2, offload="cpu"
    )
    assert (violations(sharded) is None) == METHODS[method].allows_zero


def test_full_fine_tuning_may_be_split_in_every_way() -> None:
    for stage in (0, 2, 3):
        for workers in (1, 4):
            assert violations(_knobs(method="full", zero_stage=stage, workers=workers)) is None


def _reason(**given: Any) -> str:
    reason = violations(_knobs(**given))
    assert reason is not None
    return reason


def _knobs(**given: Any) -> dict[str, Any]:
    return canonical({"model": "m", **given})
