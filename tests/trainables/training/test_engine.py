"""The engine of one device: schedules, and knobs that it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.tiny_trials import make_spec, make_trial, run, shared_base
from trainables.data.batches import collate
from trainables.models.base import load_base
from trainables.resources.out_of_memory import DoesNotFitError, memory_errors
from trainables.spec.knobs import SCHEDULES
from trainables.training import checkpoint
from trainables.training.checkpoint import Checkpoint
from trainables.training.engine import Engine, less_activation_memory
from trainables.training.optimizer import schedule_factor
from trainables.training.trial import TrialContext


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.35, 1.0])
def test_the_rate_is_that_of_transformers(schedule: str, warmup: float) -> None:
    assert _factors(schedule, warmup=warmup) == pytest.approx(_of_transformers(schedule, warmup))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_from_nothing_over_the_warm_up(schedule: str) -> None:
    assert _factors(schedule, warmup=0.4)[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_after_the_warm_up_each_schedule_goes_its_way() -> None:
    assert _factors("constant", warmup=0.0) == [1.0] * 10
    assert _factors("linear", warmup=0.0) == pytest.approx([1 - n / 10 for n in range(10)])
    cosine = _factors("cosine", warmup=0.0)
    assert cosine[0] == 1.0 and cosine[5] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)


def test_an_optimizer_that_a_cpu_has_not_is_told_as_what_does_not_fit(
    tiny_llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(DoesNotFitError, match=r"needs a CUDA device.*Use adamw"):
        run(make_spec(tiny_llama, optimizer="paged_adamw_8bit"), tmp_path)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "paged_adamw_8bit"])
def test_an_optimizer_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    optimizer: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(make_spec(tiny_llama, rank=128, max_gradient_norm=0.1), tmp_path)
    engine = _engine(trial, optimizer)
    _train(engine, trial, steps=2)
    tensors, state = engine.tensors(), engine.state()
    checkpoint.save(tmp_path, Checkpoint(step=2, state=state, tensors=tensors))
    whole = _train(engine, trial, steps=3)
    resumed = _engine(trial, optimizer)
    last = checkpoint.load_latest(tmp_path)
    assert last is not None
    resumed.restore(last.tensors, last.state)
    assert _train(resumed, trial, steps=3) == whole
    before, after = engine.tensors(), resumed.tensors()
    assert before.keys() == after.keys() == tensors.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (optimizer == "sgd") == (not any(name.startswith("optimizer.") for name in tensors))
    eight_bit = [name for name, tensor in tensors.items() if name.endswith("state1")]
    assert {tensors[name].dtype for name in eight_bit} == _STATE_DTYPES.get(optimizer, set())


def test_memory_that_a_cpu_has_not_is_told_as_what_does_not_fit() -> None:
    with pytest.raises(DoesNotFitError), memory_errors():
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="other"), memory_errors():
        raise RuntimeError("other")


def test_gradient_checkpointing_ends_with_the_trial(tiny_llama: Path) -> None:
    model = shared_base(make_spec(tiny_llama)).model
    with less_activation_memory(model, wanted=True):
        assert model.is_activation_checkpointing
    assert not model.is_activation_checkpointing


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_trial_computes_in_the_dtype_it_was_given(
    dtype: str, tiny_llama: Path, tmp_path: Path
) -> None:
    full = run(make_spec(tiny_llama), tmp_path)[-1].metrics
    half = run(make_spec(tiny_llama, compute_dtype=dtype), tmp_path)[-1].metrics
    assert half["train_loss"] != full["train_loss"]
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.05)
    assert half["eval_loss"] == pytest.approx(full["eval_loss"], rel=0.05)


# bitsandbytes keeps the moments of small parameters in full
_STATE_DTYPES = {"paged_adamw_8bit": {torch.uint8, torch.float32}}


def _engine(trial: TrialContext, optimizer: str) -> Engine:
    """An engine on a newly attached model; a paged optimizer works on a CPU too, unpaged."""
    from bitsandbytes.optim import PagedAdamW8bit

    named = optimizer if optimizer == "sgd" else "adamw"
    knobs = {**trial.spec.knobs, "optimizer": named}
    model = trial.method.attach(load_base(trial.spec, device="cpu").model, seed=0)
    engine = Engine(model, trial.base, knobs, total_steps=8)
    if optimizer == "paged_adamw_8bit":
        engine.optimizer = PagedAdamW8bit(engine.parameters.values(), lr=5e-3)
    return engine


def _train(engine: Engine, trial: TrialContext, *, steps: int) -> list[float]:
    batch = collate(trial.data.split("train"), [0, 1], pad_token=trial.base.pad_token)
    losses = []
    for step in range(steps):
        losses.append(engine.accumulate(batch, completion_tokens=8))
        engine.step(step)
    return losses


def _of_transformers(schedule: str, warmup: float) -> list[float]:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    named = "constant_with_warmup" if schedule == "constant" else schedule
    rising = math.ceil(10 * warmup)
    scheduler = get_scheduler(named, optimizer, num_warmup_steps=rising, num_training_steps=10)
    rates = []
    for _ in range(10):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def _factors(schedule: str, *, warmup: float) -> list[float]:
    return [schedule_factor(schedule, step=n, total_steps=10, warmup=warmup) for n in range(10)]
