"""Measured memory: equal to what the allocator reports, without side effects."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import BUDGET, make_spec, run, shared_base
from trainables.resources import memory_peak
from trainables.resources.memory_peak import PeakMemory
from trainables.training import steps
from trainables.training.progress import Progress

MEBIBYTE = 1 << 20


@pytest.fixture
def peak(tiny_llama: Path) -> PeakMemory:
    return PeakMemory(shared_base(make_spec(tiny_llama)).model, torch.device("cpu"))


def test_the_peak_is_the_model_and_the_most_that_lived_at_once(
    peak: PeakMemory, tiny_llama: Path
) -> None:
    weights = shared_base(make_spec(tiny_llama)).weight_bytes
    with peak.measure(representative=True):
        for _ in range(3):
            block = torch.empty(MEBIBYTE, dtype=torch.uint8)
            del block
        both = [torch.empty(MEBIBYTE, dtype=torch.uint8) for _ in range(2)]
        del both
    assert peak.bytes == weights + 2 * MEBIBYTE


def test_what_is_held_beside_the_model_counts_while_it_is(
    peak: PeakMemory, tiny_llama: Path
) -> None:
    weights = shared_base(make_spec(tiny_llama)).weight_bytes
    with peak.holding(5 * MEBIBYTE), peak.measure(representative=True):
        torch.empty(MEBIBYTE, dtype=torch.uint8)
    assert peak.bytes == weights + 6 * MEBIBYTE
    with peak.measure(representative=True):
        torch.empty(5 * MEBIBYTE + 1, dtype=torch.uint8)
    assert peak.bytes == weights + 6 * MEBIBYTE


def test_the_peak_never_falls_and_stretches_that_are_not_representative_do_not_count(
    peak: PeakMemory,
) -> None:
    with peak.measure(representative=False):
        torch.empty(MEBIBYTE)
    assert peak.bytes == 0
    with peak.measure(representative=True):
        torch.empty(MEBIBYTE)
    highest = peak.bytes
    with peak.measure(representative=True):
        torch.empty(1)
    assert peak.bytes == highest


def test_what_an_earlier_stretch_made_and_only_now_goes_does_not_lower_the_peak(
    peak: PeakMemory, tiny_llama: Path
) -> None:
    weights = shared_base(make_spec(tiny_llama)).weight_bytes
    with peak.measure(representative=True):
        left_over = torch.empty(MEBIBYTE, dtype=torch.uint8)
    with peak.measure(representative=True):
        del left_over
        blocks = [torch.empty(2 * MEBIBYTE, dtype=torch.uint8)]
        del blocks
    assert peak.bytes == weights + 2 * MEBIBYTE


def test_what_a_four_bit_layer_allocates_inside_its_kernel_is_seen() -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    layer = Linear4bit(1024, 1024, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.weight = Params4bit(torch.randn(1024, 1024), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    layer.weight = layer.weight.to("cpu")
    layer.support_avx512bf16_for_cpu = False
    peak = PeakMemory(torch.nn.Identity(), torch.device("cpu"))
    with torch.no_grad(), peak.measure(representative=True):
        layer(torch.randn(1, 1024))
    assert peak.bytes > 4 * MEBIBYTE  # the dequantized weight


def test_measuring_does_not_change_the_training(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tiny_llama, dropout=0.2, gradient_accumulation=2, batch_size=2)
    measured = [event.metrics["train_loss"] for event in run(spec, tmp_path / "measured")]

    def nothing(*given: Any, **named: Any) -> None:
        del given, named

    monkeypatch.setattr(steps, "measure_training", nothing)
    assert [e.metrics["train_loss"] for e in run(spec, tmp_path / "unmeasured")] == measured


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_larger_batch_takes_more_memory_and_checkpointing_less(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization, batch_size=2)
    small = _train_peak(spec, tmp_path)
    large = _train_peak(replace(spec, knobs={**spec.knobs, "batch_size": 8}), tmp_path)
    less = {**spec.knobs, "batch_size": 8, "gradient_checkpointing": True}
    assert small < _train_peak(replace(spec, knobs=less), tmp_path) < large


def test_accumulating_takes_no_more_memory_than_gradients_do(
    tiny_llama: Path, tmp_path: Path
) -> None:
    once = _train_peak(make_spec(tiny_llama, batch_size=2), tmp_path)
    twice = _train_peak(make_spec(tiny_llama, batch_size=2, gradient_accumulation=2), tmp_path)
    assert once <= twice < 1.1 * once


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_the_process_peak_starts_again_when_reset() -> None:
    block = bytearray(256 * MEBIBYTE)
    high = memory_peak.process_peak_memory_bytes()
    del block
    memory_peak.reset_process_peak()
    assert memory_peak.process_peak_memory_bytes() < high - 200 * MEBIBYTE


def test_what_a_device_has_seen_is_kept_through_attempts_and_told_at_rungs(
    peak: PeakMemory,
) -> None:
    progress = Progress(device_peaks={"reserved_peak_memory_bytes": 7})
    assert peak.device_peaks == {}  # on a CPU
    progress.record_device_peaks(peak)
    peak.device_peaks = {"reserved_peak_memory_bytes": 5, "allocated_peak_memory_bytes": 3}
    progress.record_device_peaks(peak)
    told = progress.memory_metrics()
    assert told["reserved_peak_memory_bytes"] == 7.0
    assert told["allocated_peak_memory_bytes"] == 3.0


def _train_peak(spec: Any, folder: Path) -> float:
    once = replace(spec, budget=replace(BUDGET, train_examples=8, rungs=(1.0,)))
    return run(once, folder)[-1].metrics["train_peak_memory_bytes"]
