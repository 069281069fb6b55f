"""FLOPs done: those of the batches that ran, counted once however often a trial is interrupted."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import EXECUTION, make_spec, make_trial
from trainables.data.batches import IGNORED, Batch, collate, length_sorted
from trainables.resources.estimate import FlopRates
from trainables.resources.flops import (
    ForwardBackward,
    Generation,
    batch_forward_backward,
    choice_passes,
    rates_of,
    total_flops,
)
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.training import checkpoint
from trainables.training.engine import Engine
from trainables.training.loop import train
from trainables.training.progress import Progress, last_progress
from trainables.training.trial import TrialContext

TRAINING = {"token": 6.0, "pair": 3.0, "logit": 12.0}
FORWARD = {"token": 2.0, "pair": 1.0, "logit": 4.0}
PREDICTION: dict[str, Any] = {"training": TRAINING, "forward": FORWARD}
BUDGET = Budget(train_examples=32, eval_examples=3, rungs=(0.25, 1.0))
OFTEN = dataclasses.replace(EXECUTION, checkpoint_seconds=0.0)


def trial_of(spec: TrialSpec, folder: Path, *, prediction: Any = PREDICTION) -> TrialContext:
    trial = make_trial(spec, folder)
    if prediction is not None:
        trial.folder.write_estimate(prediction)
    return trial


def rungs(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.kind == "rung"]


def flops(event: Event) -> tuple[float, float]:
    return event.metrics["train_flops"], event.metrics["eval_flops"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[ForwardBackward]:
    """The micro-batches that training gave to the engine, as their tensors are."""
    passes: list[ForwardBackward] = []
    accumulate = Engine.accumulate

    def noted(engine: Engine, batch: Batch, **given: Any) -> float:
        passes.append(_of_tensors(batch))
        return accumulate(engine, batch, **given)

    monkeypatch.setattr(Engine, "accumulate", noted)
    monkeypatch.setattr("trainables.training.steps.measure_training", _nothing)
    return passes


@pytest.mark.slow
def test_training_counts_the_micro_batches_that_ran_with_their_padding(
    seen: list[ForwardBackward], tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, batch_size=2, gradient_accumulation=2)
    events = list(train(trial_of(spec, tmp_path)))
    rates = FlopRates(**TRAINING)
    at_rungs = [event.metrics["train_flops"] for event in rungs(events)]
    by_step = [total_flops(seen[: 2 * step], rates) for step in (1, 2, 4)]
    assert at_rungs == pytest.approx(by_step)
    assert len(seen) == 8 and all(item.batch_size == 2 for item in seen)


def test_the_work_of_a_batch_is_that_of_its_tensors(tiny_llama: Path, tmp_path: Path) -> None:
    data = make_trial(make_spec(tiny_llama), tmp_path).data.split("train")
    for indices in ([0], [1, 2, 3], list(range(10))):
        assert batch_forward_backward(data, indices) == _of_tensors(
            collate(data, indices, pad_token=0)
        )


def test_tokens_whose_states_are_there_are_not_computed_but_seen() -> None:
    rates = FlopRates(token=100.0, pair=1.0, logit=10.0, fixed=7.0)
    after = ForwardBackward(batch_size=2, length=10, positions=3, known=4)
    assert after.flops(rates) == 2 * (600 + 6 * 10 + 30) + 7
    written = Generation(batch_size=2, prompt=10, new_tokens=3, known=4)
    assert written.flops(rates) == 2 * (800 + 6 * 10 + 11 + 12 + 30) + 3 * 7


def test_choices_are_scored_in_turn_after_their_prompts() -> None:
    assert choice_passes([9, 7], [[2, 3], [4]], known=5) == [
        ForwardBackward(2, 8, 1, 5),
        ForwardBackward(2, 12, 4, 8),
        ForwardBackward(2, 11, 3, 8),
    ]


def test_an_evaluation_counts_its_losses_and_the_steps_of_its_answers(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = trial_of(make_spec(tiny_llama, method="untrained"), tmp_path)
    written: list[torch.Tensor] = []
    generate = trial.base.model.generate

    def noted(**given: Any) -> torch.Tensor:
        written.append(generate(**given))
        asked.append(given["input_ids"].shape)
        return written[-1]

    asked: list[torch.Size] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial.base.model, "generate", noted)
        (rung, _) = train(trial)
    rates = FlopRates(**FORWARD)
    answers = [
        Generation(rows, length, out.shape[1] - length)
        for (rows, length), out in zip(asked, written, strict=True)
    ]
    selection, report = (trial.data.split(name) for name in ("selection", "report"))
    losses = [
        batch_forward_backward(data, indices)
        for data in (selection, report)
        for indices in length_sorted([data.length(at) for at in range(len(data))], batch_size=4)
    ]
    assert len(losses) == len(answers) == 3
    assert rung.metrics["train_flops"] == 0.0
    expected = total_flops([*losses, *answers], rates)
    assert rung.metrics["eval_flops"] == pytest.approx(expected)


@pytest.mark.slow
def test_without_a_prediction_nothing_is_counted_and_nothing_fails(
    tiny_llama: Path, tmp_path: Path
) -> None:
    for number, prediction in enumerate([None, {}, {**PREDICTION, "training": {"token": "x"}}]):
        trial = trial_of(make_spec(tiny_llama), tmp_path / str(number), prediction=prediction)
        events = list(train(trial))
        assert not {"train_flops", "eval_flops"} & events[-1].metrics.keys()
        assert events[-1].metrics["device_seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_a_trial_that_was_broken_off_counts_its_work_once(
    killed: bool, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, budget=BUDGET, batch_size=2)
    whole = list(train(trial_of(spec, tmp_path / "whole")))
    running = train(trial_of(spec, tmp_path / "0"))
    while next(running).step < 9:  # a rung, and its checkpoint, lie at step 4
        pass
    if not killed:
        running.close()
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    running.close()
    assert last_progress(make_trial(spec, tmp_path / "1").folder).step == (4 if killed else 9)
    found = trial_of(spec, tmp_path / "1")
    events = list(train(found))
    assert flops(events[-1]) == pytest.approx(flops(whole[-1]))
    summary = found.folder.summary()
    assert summary is not None and summary["attempts"] == 2
    assert summary["metrics"]["train_flops"] == events[-1].metrics["train_flops"]


@pytest.mark.slow
@pytest.mark.parametrize("predicted", ["before", "after"])
def test_work_that_was_counted_in_part_only_is_not_told(
    predicted: str, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama)
    trial = trial_of(spec, tmp_path, prediction=PREDICTION if predicted == "before" else None)
    running = train(trial)
    next(running)
    running.close()
    trial.folder.write_estimate({} if predicted == "before" else PREDICTION)
    events = list(train(trial))
    assert all("train_flops" not in event.metrics for event in events)


@pytest.mark.slow
def test_a_checkpoint_from_before_costs_were_kept_still_loads(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = trial_of(make_spec(tiny_llama, execution=OFTEN), tmp_path)
    running = train(trial)
    for _ in range(2):
        next(running)
    running.close()
    saved = checkpoint.load_latest(trial.folder.checkpoints_folder)
    assert saved is not None
    progress = saved.state["progress"]
    for name in ("train_flops", "eval_flops", "device_seconds", "device_shared", "device_peaks"):
        del progress[name]
    checkpoint.save(trial.folder.checkpoints_folder, saved)
    before = last_progress(trial.folder)
    assert before.device_seconds == before.seconds > 0
    events = list(train(trial))
    assert events[-1].kind == "finished" and "train_flops" not in events[-1].metrics
    assert events[-1].metrics["device_seconds"] > before.device_seconds


@pytest.mark.slow
def test_the_device_is_held_from_loading_to_the_end_and_on_all_devices(
    tiny_llama: Path, tmp_path: Path
) -> None:
    trial = dataclasses.replace(
        trial_of(make_spec(tiny_llama), tmp_path), load_seconds=50.0, device_shared=True
    )
    metrics = list(train(trial))[-1].metrics
    summary = trial.folder.summary()
    assert summary is not None
    assert metrics["device_seconds"] >= 50.0 + summary["seconds"]["total"]
    assert metrics["device_shared"] == 1.0
    alone = list(train(trial_of(make_spec(tiny_llama, seed=1), tmp_path)))[-1].metrics
    assert alone["device_shared"] == 0.0 and alone["device_seconds"] < 50.0
    four = Progress()
    four.begin_attempt(_of_workers(trial, 4), can_count=True)
    assert four.device_seconds == 200.0


def test_rates_that_cannot_be_read_are_none() -> None:
    assert rates_of(None) is None and rates_of({}) is None
    assert rates_of({**PREDICTION, "forward": 3}) is None
    assert rates_of({**PREDICTION, "forward": {"token": 1.0}}) is None
    found = rates_of({**PREDICTION, "train_memory_bytes": 3})
    assert found is not None and found.training.logit == 12.0


def _of_workers(trial: TrialContext, workers: int) -> TrialContext:
    knobs = {**trial.spec.knobs, "workers": workers}
    return dataclasses.replace(trial, spec=dataclasses.replace(trial.spec, knobs=knobs))


def _of_tensors(batch: Batch) -> ForwardBackward:
    rows, length = batch.input_ids.shape
    asked = (batch.labels[:, 1:] != IGNORED).any(dim=0)
    return ForwardBackward(batch_size=rows, length=length, positions=int(asked.sum()))


def _nothing(*given: Any, **named: Any) -> None:
    del given, named
