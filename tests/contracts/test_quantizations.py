"""The contract of every row of QUANTIZATIONS: training and evaluation leave the base unchanged."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import (
    BUDGET,
    EXECUTION,
    evaluate_selection,
    gradients,
    make_spec,
    make_trial,
    run,
    shared_base,
)
from trainables.evaluation.evaluate import evaluate
from trainables.models.base import Base, load_base
from trainables.models.tensors import stored_tensors
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.quantization import QUANTIZATIONS
from trainables.training.engine import Engine

# bitsandbytes' int8 on a CPU chooses its outlier columns over the whole batch, so the result of an
# example depends on the rest of the batch there (about 1e-3).
INDEPENDENT_OF_THE_BATCH = sorted(set(QUANTIZATIONS) - {"int8"})


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_an_evaluation_in_between_changes_no_gradient(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    trial = make_trial(make_spec(tiny_llama, quantization=quantization), tmp_path)
    model = trial.method.attach(trial.base.model, seed=0)
    engine = Engine(model, trial.base, trial.spec.knobs, total_steps=4)
    with torch.no_grad():  # B is initialised to zero, which makes A's gradient zero
        for parameter in engine.parameters.values():
            parameter.add_(0.01)
    before = gradients(engine, trial)
    evaluate_selection(model, trial)
    after = gradients(engine, trial)
    trial.method.detach(model).eval()
    assert before.abs().max() > 0
    assert torch.equal(before, after)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_base_is_given_back_as_it_was_loaded(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization)
    base = load_base(spec, device="cpu")
    run(spec, tmp_path, base=base)
    fresh = load_base(spec, device="cpu")
    assert _content(base).keys() == _content(fresh).keys()
    for name, tensor in _content(fresh).items():
        assert torch.equal(_content(base)[name], tensor), name
    assert _shape(base) == _shape(fresh)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_nothing_of_a_trial_stays_in_memory(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization)
    shared_base(spec)
    before = _trainable()
    run(spec, tmp_path)
    assert _trainable() <= before


@pytest.mark.parametrize("quantization", INDEPENDENT_OF_THE_BATCH)
def test_a_batch_of_four_is_four_batches_of_one(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization)
    one_by_one = {**spec.knobs, "batch_size": 1, "gradient_accumulation": 4}
    at_once = run(spec, tmp_path)
    accumulated = run(replace(spec, knobs=one_by_one), tmp_path)
    for event, other in zip(at_once, accumulated, strict=True):
        for name in {"train_loss", "eval_loss", "tokens_seen"} & set(event.metrics):
            assert event.metrics[name] == pytest.approx(other.metrics[name], rel=1e-5), name


@pytest.mark.parametrize("quantization", INDEPENDENT_OF_THE_BATCH)
def test_answers_do_not_depend_on_the_generations_batch_size(
    quantization: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization, method="untrained")
    answers = [_answers(spec, size, tmp_path) for size in (1, 5, 32)]
    assert answers[0] == answers[1] == answers[2]
    assert len(set(answers[0])) > 1


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_training_lowers_the_loss(quantization: str, tiny_llama: Path, tmp_path: Path) -> None:
    budget = replace(BUDGET, train_examples=64, rungs=(1.0,))
    spec = make_spec(
        tiny_llama,
        quantization=quantization,
        budget=budget,
        learning_rate=0.02,
        generated={"train": 4},
    )
    losses = [event.metrics["train_loss"] for event in run(spec, tmp_path)]
    assert losses[-1] < 0.7 * losses[0]


def _trainable() -> set[int]:
    """The ids of all living trainable parameters."""
    gc.collect()
    alive = [item for item in gc.get_objects() if isinstance(item, torch.nn.Parameter)]
    return {id(parameter) for parameter in alive if parameter.requires_grad}


def _content(base: Base) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in stored_tensors(base.model)}


def _shape(base: Base) -> list[tuple[str, str, bool, int]]:
    """Name, class, mode and number of forward hooks of each module."""
    return [
        (name, type(module).__name__, module.training, len(module._forward_hooks))
        for name, module in base.model.named_modules()
    ]


def _answers(spec: Any, size: int, folder: Path) -> list[str]:
    execution = replace(EXECUTION, eval_batch_size=size)
    trial = make_trial(replace(spec, execution=execution), folder)
    evaluation = evaluate(
        trial.base.model,
        trial.base,
        task=trial.data.task,
        encoded=trial.data.split("selection"),
        execution=execution,
        peak=PeakMemory(shared_base(spec).model, trial.base.device),
    )
    return [row["prediction"] for row in evaluation.predictions]
