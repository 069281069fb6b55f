"""Full fine-tuning gives the same curve however it is distributed over workers.

{1 worker, 2 workers at half the batch size, ZeRO-2, ZeRO-3, ZeRO-3 killed and resumed} of a small
model in float32 on a CPU agree to 1e-4, in every loss and in the final weights. Ranks are real
processes joined by torch.distributed. The last step has one example, so one rank has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_models import make_llama
from tests.tiny_trials import make_spec, make_trial, run
from tests.trainables.workers.rank_team import run_team
from trainables.methods.parts import WEIGHTS
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage.trial_folder import TrialFolder
from trainables.training.progress import resumed_history

pytestmark = pytest.mark.slow

BUDGET = Budget(train_examples=25, eval_examples=3, rungs=(0.3, 1.0))  # steps 2 and 7
KNOBS: dict[str, Any] = {
    "method": "full",
    "learning_rate": 2e-3,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "schedule": "cosine",
    "warmup": 0.2,
    "weight_decay": 0.1,
    "max_gradient_norm": 8.0,  # some steps are clipped
}
HALF: dict[str, Any] = {"workers": 2, "batch_size": 1}
TOLERANCE = 1e-4
COMPARED = ("train_loss", "eval_loss", "learning_rate_now", "em_acc", "tokens_seen")


@dataclass(frozen=True)
class Outcome:
    """What a training tells at each event, and the folder that it leaves."""

    events: list[Event]
    folder: TrialFolder


@pytest.fixture(scope="module")
def alone(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The curve of one worker, which the others are held against."""
    place = tmp_path_factory.mktemp("alone")
    spec = _spec(tiny_llama)
    events = run(spec, place)
    assert events[-2].metrics["train_loss"] < 0.8 * events[0].metrics["train_loss"]
    return Outcome(events, make_trial(spec, place).folder)


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_two_workers_at_half_the_batch_have_the_curve_of_one(
    zero_stage: int, alone: Outcome, tiny_llama: Path, tmp_path: Path
) -> None:
    _needs_deepspeed(zero_stage)
    spec = _spec(tiny_llama, zero_stage=zero_stage, **HALF)
    folder, (first, second) = run_team(spec, tmp_path)
    _assert_same(Outcome(first, folder), alone)
    assert [(e.kind, e.step, e.metrics) for e in second] == [
        (e.kind, e.step, e.metrics) for e in first[:-1]
    ] + [(second[-1].kind, second[-1].step, second[-1].metrics)]
    _assert_only_the_model_is_left(folder)


def test_zero_3_killed_and_resumed_has_the_curve_of_one(
    alone: Outcome, tiny_llama: Path, tmp_path: Path
) -> None:
    _needs_deepspeed(3)
    spec = _spec(tiny_llama, zero_stage=3, **HALF)
    folder, _ = run_team(spec, tmp_path, die_at=4)
    history = resumed_history(folder)
    assert [event.step for event in history] == [1, 2]  # what the last checkpoint knows
    assert not folder.done
    for file in tmp_path.glob("rank-*.jsonl"):
        file.unlink()
    folder, (first, _) = run_team(spec, tmp_path)
    assert first[0].step == 3
    _assert_same(Outcome(history + first, folder), alone)
    _assert_only_the_model_is_left(folder)


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_base_that_writes_tokens_with_the_weights_it_reads_them_by_ends_as_alone(
    zero_stage: int, tmp_path: Path
) -> None:
    _needs_deepspeed(zero_stage)
    base = make_llama(tmp_path / "tied", tied=True)
    events = run(_spec(base), tmp_path / "alone")
    expected = Outcome(events, make_trial(_spec(base), tmp_path / "alone").folder)
    spec = _spec(base, zero_stage=zero_stage, **HALF)
    folder, (first, _) = run_team(spec, tmp_path)
    _assert_same(Outcome(first, folder), expected)
    _assert_only_the_model_is_left(folder)


@pytest.mark.parametrize("method", ["partial", "bias"])
def test_two_workers_train_parts_of_the_base_as_one_does(
    method: str, tiny_llama: Path, tmp_path: Path
) -> None:
    knobs = {"method": method, "max_gradient_norm": 1.0}
    spec = _spec(tiny_llama, **knobs)
    events = run(spec, tmp_path / "alone")
    folder, (first, _) = run_team(_spec(tiny_llama, **knobs, **HALF), tmp_path)
    losses = [[event.metrics.get("train_loss") for event in told] for told in (first, events)]
    assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)
    one = load_file(make_trial(spec, tmp_path / "alone").folder.adapter_folder / WEIGHTS)
    two = load_file(folder.adapter_folder / WEIGHTS)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=TOLERANCE) for name in one)


def _spec(model: Path, **knobs: Any) -> TrialSpec:
    return make_spec(model, budget=BUDGET, **{**KNOBS, **knobs})


def _assert_same(found: Outcome, expected: Outcome) -> None:
    told = [(event.kind, event.step, event.units) for event in found.events]
    assert told == [(event.kind, event.step, event.units) for event in expected.events]
    for event, other in zip(found.events, expected.events, strict=True):
        for name in COMPARED:
            if name in other.metrics:
                assert event.metrics[name] == pytest.approx(other.metrics[name], abs=TOLERANCE), (
                    f"{name} at step {event.step}"
                )
    ours, theirs = _weights(found.folder), _weights(expected.folder)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], atol=TOLERANCE), name


def _weights(folder: TrialFolder) -> dict[str, torch.Tensor]:
    """Of the model as plain transformers loads it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder.model_folder)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _assert_only_the_model_is_left(folder: TrialFolder) -> None:
    """No shards, no pickles; what it took is in the summary."""
    assert not folder.checkpoints_folder.exists()
    assert not [*folder.path.rglob("*.pt"), *folder.path.rglob("*.bin")]
    assert folder.is_sound() and not folder.damaged_adapter()
    summary = folder.summary()
    assert summary is not None
    facts = summary["facts"]
    files = [file for file in folder.model_folder.rglob("*") if file.is_file()]
    assert facts["checkpoint_bytes"] == sum(file.stat().st_size for file in files)
    assert facts["save_seconds"] > 0
    assert facts["workers"] == 2


def _needs_deepspeed(zero_stage: int) -> None:
    if zero_stage:
        pytest.importorskip("deepspeed", reason="ZeRO is DeepSpeed's")
