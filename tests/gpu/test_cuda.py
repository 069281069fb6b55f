"""Trials on a CUDA device: every quantization, half precision, memory, resuming.

These tests were written on a machine without a GPU and have not been run on one yet: if one fails,
the test or its tolerances may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import make_llama
from tests.tiny_trials import EXECUTION, evaluate_selection, gradients, make_spec, make_trial
from trainables.models.base import Base, load_base
from trainables.models.device import describe_device, resolve_compute_dtype
from trainables.models.tensors import stored_tensors
from trainables.spec.events import Event
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training.engine import Engine
from trainables.training.loop import train
from trainables.training.progress import resumed_history
from trainables.training.trial import TrialContext

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

LEARNS: dict[str, Any] = {
    "budget": Budget(train_examples=64, eval_examples=3, rungs=(1.0,)),
    "generated": {"train": 4},
    "learning_rate": 0.01,
}
BFLOAT16 = pytest.mark.skipif(
    describe_device().get("bfloat16") is not True, reason="needs a GPU with bfloat16"
)
HALVES = [pytest.param("bfloat16", marks=BFLOAT16), "float16"]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that is wide enough for the usual paths of the quantized kernels."""
    return make_llama(tmp_path_factory.mktemp("llama"), hidden_size=128)


@pytest.fixture(scope="session")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose adapters of rank 256 are large enough for bitsandbytes to page moments."""
    return make_llama(tmp_path_factory.mktemp("wide_llama"), hidden_size=512)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_training_lowers_the_loss_and_is_measured(
    quantization: str, llama: Path, tmp_path: Path
) -> None:
    events = list(train(_trial(_spec(llama, quantization=quantization, **LEARNS), tmp_path)))
    losses = _losses(events)
    assert losses[-1] < 0.8 * losses[0]
    metrics = events[-1].metrics
    assert metrics["train_peak_memory_bytes"] > 0
    assert metrics["eval_peak_memory_bytes"] > 0
    assert metrics["process_peak_memory_bytes"] > 0
    allocated, reserved, device = (
        metrics[f"{name}_peak_memory_bytes"] for name in ("allocated", "reserved", "device")
    )
    assert metrics["train_peak_memory_bytes"] <= allocated <= reserved < device


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_an_evaluation_in_between_changes_no_gradient(
    quantization: str, llama: Path, tmp_path: Path
) -> None:
    trial = _trial(_spec(llama, quantization=quantization), tmp_path)
    model = trial.method.attach(trial.base.model, seed=0)
    engine = Engine(model, trial.base, trial.spec.knobs, total_steps=4)
    with torch.no_grad():  # B is initialised to zero, which makes A's gradient zero
        for parameter in engine.parameters.values():
            parameter.add_(0.01)
    before = gradients(engine, trial)
    evaluate_selection(model, trial)
    after = gradients(engine, trial)
    scale = before.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_base_is_given_back_as_it_was_loaded(
    quantization: str, llama: Path, tmp_path: Path
) -> None:
    trial = _trial(_spec(llama, quantization=quantization), tmp_path)
    list(train(trial))
    used, fresh = _content(trial.base), _content(load_base(trial.spec, device="cuda"))
    assert used.keys() == fresh.keys()
    assert all(torch.equal(used[name], fresh[name]) for name in fresh)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_trains_adapters_in_full(dtype: str, llama: Path, tmp_path: Path) -> None:
    spec = _spec(llama, compute_dtype=dtype, **LEARNS)
    trial = _trial(spec, tmp_path)
    model = trial.method.attach(trial.base.model, seed=0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert all(parameter.is_cuda for parameter in trained)
    state = Engine(model, trial.base, spec.knobs, total_steps=4).state()
    assert bool(state["scaler"]) == (dtype == "float16")  # only float16 needs a loss scaler
    trial.method.detach(model)
    losses = _losses(list(train(trial)))
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_near_full_precision(dtype: str, llama: Path, tmp_path: Path) -> None:
    full, half = (
        _losses(list(train(_trial(_spec(llama, compute_dtype=name), tmp_path))))
        for name in ("float32", dtype)
    )
    assert half[0] != full[0]
    assert half[0] == pytest.approx(full[0], rel=0.05)


@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
@pytest.mark.parametrize("dtype", HALVES)
def test_a_trial_goes_on_from_its_checkpoint(
    optimizer: str, dtype: str, wide_llama: Path, tmp_path: Path
) -> None:
    spec = _spec(wide_llama, compute_dtype=dtype, optimizer=optimizer, rank=256, dropout=0.1)
    spec = replace(spec, execution=replace(EXECUTION, checkpoint_seconds=0.0))
    whole = list(train(_trial(spec, tmp_path / "whole")))
    running = train(_trial(spec, tmp_path / "stopped"))
    before = [next(running) for _ in range(2)]
    running.close()
    resumed = _trial(spec, tmp_path / "stopped")
    assert resumed_history(resumed.folder) == before
    events = before + list(train(resumed))
    assert [(e.kind, e.step) for e in events] == [(e.kind, e.step) for e in whole]
    assert _losses(events) == pytest.approx(_losses(whole), rel=0.02)


def test_paged_adamw_in_8_bits_trains(llama: Path, tmp_path: Path) -> None:
    spec = _spec(llama, optimizer="paged_adamw_8bit", rank=64, **LEARNS)
    losses = _losses(list(train(_trial(spec, tmp_path))))
    assert losses[-1] < 0.8 * losses[0]


def _spec(model: Path, **given: Any) -> TrialSpec:
    dtype = resolve_compute_dtype("auto", "cuda")
    return make_spec(model, **{"compute_dtype": dtype, **given})


def _trial(spec: TrialSpec, folder: Path) -> TrialContext:
    return make_trial(spec, folder, base=load_base(spec, device="cuda"))


def _losses(events: Sequence[Event]) -> list[float]:
    return [event.metrics["train_loss"] for event in events]


def _content(base: Base) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in stored_tensors(base.model)}
