"""A trial's curve equals that of TRL's SFTTrainer with the same settings: for LoRA on every row of
QUANTIZATIONS, and for each other method.

Both train on a base loaded by `load_base`, from the same initial parameters, on the same tokens in
the same order. Each uses its own batches, padding, losses, gradients, clipping, schedule and
optimizer. TRL makes the adapter of a quantized base bfloat16; here it gets our float32 adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import EXECUTION, make_spec, make_trial
from trainables.data.batches import fixed_subset, training_order
from trainables.data.encoding import Encoded
from trainables.methods.registry import METHODS
from trainables.models.base import load_base
from trainables.spec.events import Event
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training.loop import train
from trainables.training.trial import TrialContext

STEPS, EVALUATED_AT = 20, 10
BATCH_SIZE, ACCUMULATION = 2, 3
BUDGET = Budget(train_examples=117, eval_examples=6, rungs=(0.5, 1.0))  # the last step is smaller
# One batch, because TRL averages the loss of an evaluation over batches, not over tokens.
IN_ONE_BATCH = replace(EXECUTION, eval_batch_size=BUDGET.eval_examples)
KNOBS: dict[str, Any] = {
    "batch_size": BATCH_SIZE,
    "gradient_accumulation": ACCUMULATION,
    "learning_rate": 5e-3,
    "schedule": "linear",
    "warmup": 0.15,
    "weight_decay": 0.1,
    "max_gradient_norm": 3.5,  # some steps are clipped
}
OTHERS: dict[str, dict[str, Any]] = {  # some steps of each are clipped
    "full": {"learning_rate": 2e-3, "max_gradient_norm": 7.0},
    "partial": {"learning_rate": 2e-3, "max_gradient_norm": 7.0},
    "bias": {"learning_rate": 5e-2, "max_gradient_norm": 1.6},
}
TOLERANCE = 1e-4
# int8 on a CPU rounds activations to 8 bits in an evaluation (not in training), so the last bit of
# an adapter's parameter can change the loss by 5e-4.
EVAL_TOLERANCE = {"int8": 2e-3}


@dataclass(frozen=True)
class Curve:
    """The values of a training run by optimizer step, counted from 1."""

    train_loss: dict[int, float]
    learning_rate: dict[int, float]
    eval_loss: dict[int, float]


@pytest.mark.slow
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_curve_is_that_of_trl(quantization: str, tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(
        tiny_llama, quantization=quantization, budget=BUDGET, execution=IN_ONE_BATCH, **KNOBS
    )
    _compare(spec, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_the_curve_of_every_other_method_is_that_of_trl(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    knobs = {**KNOBS, **OTHERS[method]}
    spec = make_spec(tiny_llama, method=method, budget=BUDGET, execution=IN_ONE_BATCH, **knobs)
    _compare(spec, tmp_path)


def test_every_method_that_trains_has_its_learning_rate_here() -> None:
    assert {"lora", *OTHERS} == {name for name, method in METHODS.items() if method.trains}


def _compare(spec: TrialSpec, tmp_path: Path) -> None:
    quantization = spec.knobs["quantization"]
    trial = make_trial(spec, tmp_path / "ours")
    ours = _ours(list(train(trial)))
    theirs, gradient_norms = _theirs(trial, tmp_path / "theirs")
    assert ours.train_loss.keys() == theirs.train_loss.keys() == set(range(1, STEPS + 1))
    assert ours.train_loss == pytest.approx(theirs.train_loss, abs=TOLERANCE)
    assert ours.learning_rate == pytest.approx(theirs.learning_rate, rel=1e-6)
    difference = ours.eval_loss[EVALUATED_AT] - theirs.eval_loss[EVALUATED_AT]
    assert abs(difference) < EVAL_TOLERANCE.get(quantization, TOLERANCE)
    limit = spec.knobs["max_gradient_norm"]
    assert min(gradient_norms) < limit < max(gradient_norms)
    assert ours.train_loss[STEPS] < 0.8 * ours.train_loss[1]


def _ours(events: list[Event]) -> Curve:
    told = [event for event in events if event.kind != "finished"]
    return Curve(
        train_loss={event.step: event.metrics["train_loss"] for event in told},
        learning_rate={event.step: event.metrics["learning_rate_now"] for event in told},
        eval_loss={e.step: e.metrics["eval_loss"] for e in told if e.kind == "rung"},
    )


def _theirs(trial: TrialContext, folder: Path) -> tuple[Curve, list[float]]:
    from trl import SFTTrainer

    spec = trial.spec
    base = load_base(spec, device="cpu")
    model = trial.method.attach(base.model, seed=spec.knobs["seed"])
    initial = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    trainer = SFTTrainer(
        model=model,
        args=_arguments(spec, folder),
        train_dataset=_dataset(trial.data.split("train"), _training_order(trial)),
        eval_dataset=_dataset(trial.data.split("selection"), _asked(trial)),
        processing_class=base.tokenizer,
    )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = initial[name]
    trainer.train()
    return _told(trainer.state.log_history)


def _arguments(spec: TrialSpec, folder: Path) -> Any:
    from trl import SFTConfig

    knobs = spec.knobs
    return SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=knobs["batch_size"],
        gradient_accumulation_steps=knobs["gradient_accumulation"],
        num_train_epochs=1,
        learning_rate=knobs["learning_rate"],
        lr_scheduler_type=knobs["schedule"],
        warmup_steps=knobs["warmup"],
        weight_decay=knobs["weight_decay"],
        max_grad_norm=knobs["max_gradient_norm"],
        completion_only_loss=True,
        train_sampling_strategy="sequential",
        eval_strategy="steps",
        eval_steps=EVALUATED_AT,
        per_device_eval_batch_size=spec.execution.eval_batch_size,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
    )


def _dataset(encoded: Encoded, indices: list[int]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "input_ids": [*encoded.prompts[index], *encoded.completions[index]],
                "completion_mask": [0] * len(encoded.prompts[index])
                + [1] * len(encoded.completions[index]),
            }
            for index in indices
        ]
    )


def _training_order(trial: TrialContext) -> list[int]:
    count, budget = len(trial.data.split("train")), trial.spec.budget
    return training_order(count, seed=trial.spec.knobs["seed"], start=0, stop=budget.train_examples)


def _asked(trial: TrialContext) -> list[int]:
    budget = trial.spec.budget
    count = len(trial.data.split("selection"))
    return fixed_subset(count, budget.eval_examples, seed=budget.seed)


def _told(history: list[dict[str, Any]]) -> tuple[Curve, list[float]]:
    steps = [row for row in history if "loss" in row]
    curve = Curve(
        train_loss={row["step"]: row["loss"] for row in steps},
        learning_rate={row["step"]: row["learning_rate"] for row in steps},
        eval_loss={row["step"]: row["eval_loss"] for row in history if "eval_loss" in row},
    )
    return curve, [row["grad_norm"] for row in steps]
