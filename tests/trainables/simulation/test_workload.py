"""A trial's planned work: exactly the batches that it will run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_trials import BUDGET, make_spec, make_trial
from tests.trainables.tasks.own_data import own_file
from trainables.data import token_lengths
from trainables.data.token_lengths import SplitLengths, TokenLengths, assumed_splits
from trainables.resources.estimate import UNDER_ALLOWANCE, UNDER_ALLOWANCE_BYTES
from trainables.resources.flops import ForwardBackward, Generation
from trainables.simulation.estimate import predict_trial
from trainables.simulation.service import answers
from trainables.simulation.workload import planned_work
from trainables.spec.trial_spec import Budget, Execution, TrialSpec
from trainables.tasks.identity import task_identity
from trainables.tasks.registry import make_task
from trainables.training.loop import train

SPLITS = {
    "train": SplitLengths.of([(10 + place, 2) for place in range(8)]),
    "selection": SplitLengths.of([(20, 3), (30, 1), (25, 2), (22, 2), (21, 2)]),
    "report": SplitLengths.of([(40, 2), (41, 4)]),
}
EXECUTION = Execution(eval_batch_size=2, max_new_tokens=6)


def spec(*, budget: Budget = BUDGET, **knobs: Any) -> TrialSpec:
    return make_spec(Path("/no/model"), budget=budget, execution=EXECUTION, **knobs)


@pytest.fixture(autouse=True)
def _no_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.tiny_trials._digest", lambda model: "a digest")


def test_training_is_every_micro_batch_of_the_budget_in_the_training_order() -> None:
    plan = planned_work(spec(batch_size=3, gradient_accumulation=2), SPLITS)
    assert [one.batch_size for one in plan.training] == [3, 3, 3, 3, 3, 1]  # 16 examples, 6 a step
    assert sum(one.batch_size for one in plan.training) == BUDGET.train_examples
    assert {one.length for one in plan.training} <= set(range(12, 20))


def test_the_workload_is_the_largest_micro_batch() -> None:
    work = planned_work(spec(batch_size=4), SPLITS).workload
    assert (work.batch_size, work.sequence_length) == (4, 19)
    assert work.completion_tokens == 2
    assert not work.accumulated
    assert planned_work(spec(batch_size=4, gradient_accumulation=2), SPLITS).workload.accumulated


def test_an_automatic_batch_is_planned_with_the_rows_that_fit() -> None:
    trial = spec(batch_size="auto", effective_batch_size=8)
    whole, parts = planned_work(trial, SPLITS), planned_work(trial, SPLITS, micro_batch=3)
    assert [one.batch_size for one in whole.training] == [8, 8]
    assert [one.batch_size for one in parts.training] == [3, 3, 2, 3, 3, 2]
    assert parts.workload.accumulated


def test_an_evaluation_is_its_losses_and_its_answers_longest_first() -> None:
    plan = planned_work(spec(budget=Budget(16, 3, (1.0,))), SPLITS)
    losses = [one for one in plan.evaluation if isinstance(one, ForwardBackward)]
    answered = [one for one in plan.evaluation if isinstance(one, Generation)]
    assert [(one.batch_size, one.length) for one in losses] == [(2, 31), (2, 24), (1, 23)]
    assert [(one.batch_size, one.prompt, one.new_tokens) for one in answered] == [
        (2, 30, 2),
        (2, 22, 2),
        (1, 20, 3),
    ]


def test_a_beginning_is_a_pass_of_its_own_and_known_in_all_others() -> None:
    begun = {name: replace(split, beginning=9) for name, split in SPLITS.items()}
    trial = spec(budget=Budget(16, 3, (1.0,)))
    plan = planned_work(trial, begun)
    assert plan.evaluation[0] == ForwardBackward(1, 9, 1)
    assert {one.known for one in plan.evaluation[1:]} == {9}
    assert plan.workload.eval_beginning == 9
    assert planned_work(trial, begun, keeps_states=False) == planned_work(trial, SPLITS)


def test_choices_follow_their_prompts_or_are_rows_with_them() -> None:
    choices = tuple((range(1), range(4)) for _ in range(5))
    splits = {**SPLITS, "selection": replace(SPLITS["selection"], choices=choices)}
    trial = spec(budget=Budget(16, 3, (1.0,)))
    after = planned_work(trial, splits)
    assert len(after.evaluation) == 3 + 3 * 3  # a batch: its prompts, the first choices, the second
    assert after.evaluation[3:6] == (
        ForwardBackward(2, 29, 1),
        ForwardBackward(2, 30, 1, 29),
        ForwardBackward(2, 33, 4, 29),
    )
    assert (after.workload.new_tokens, after.workload.eval_choice_tokens) == (0, 4)
    assert (after.workload.eval_length, after.workload.prompt_length) == (31, 30)
    rows = planned_work(trial, splits, keeps_states=False)
    assert len(rows.evaluation) == 3 + 5
    assert (rows.workload.new_tokens, rows.workload.eval_choice_tokens) == (0, 0)
    assert rows.workload.eval_length == 34


def test_only_the_last_rung_asks_the_whole_split_and_rungs_of_one_step_are_judged_once() -> None:
    def asked(budget: Budget) -> int:
        plan = planned_work(spec(budget=budget, batch_size=8), SPLITS)
        return sum(one.batch_size for one in plan.evaluation if isinstance(one, Generation))

    assert asked(Budget(16, 3, (1.0,))) == 5
    assert asked(Budget(16, 3, (0.5, 1.0))) == 3 + 5
    assert asked(Budget(16, 3, (0.25, 0.5, 1.0))) == 3 + 5  # both after the first step of 8


def test_the_largest_evaluation_is_the_longest_batch_with_all_room_for_answers() -> None:
    work = planned_work(spec(), SPLITS).workload
    assert (work.eval_batch_size, work.eval_length) == (2, 31)
    assert (work.prompt_length, work.new_tokens) == (30, 6)
    assert planned_work(spec(), SPLITS, positions=33).workload.new_tokens == 3
    assert planned_work(spec(), SPLITS, eval_batch=1).workload.eval_batch_size == 1


def test_a_baseline_judges_two_splits_and_trains_nothing() -> None:
    plan = planned_work(spec(method="untrained"), {n: SPLITS[n] for n in ("selection", "report")})
    assert plan.training == ()
    assert sum(one.batch_size for one in plan.evaluation if isinstance(one, ForwardBackward)) == 7
    assert plan.workload.prompt_length == 41


def test_where_nothing_can_be_tokenized_rows_are_as_long_as_they_may_be() -> None:
    splits = assumed_splits(spec(sequence_length=300), positions=256)
    work = planned_work(spec(), splits).workload
    assert (work.sequence_length, work.eval_length) == (256, 256)


def test_a_split_is_tokenized_once_and_then_known_from_the_disk(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_spec(tiny_llama)
    first = TokenLengths(tmp_path).splits(trial, positions=512)
    assert len(first["train"]) == 24
    monkeypatch.setattr(token_lengths, "_tokenized", _not_again)
    assert TokenLengths(tmp_path).splits(trial, positions=512) == first
    assert TokenLengths(tmp_path).splits(make_spec(tiny_llama, rank=9), positions=512) == first
    for file in tmp_path.iterdir():
        file.write_text("{")
    with pytest.raises(AssertionError, match="tokenized again"):
        TokenLengths(tmp_path).splits(trial, positions=512)


def _not_again(*given: Any, **named: Any) -> Any:
    raise AssertionError("tokenized again")


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"quantization": "nf4", "gradient_accumulation": 3, "batch_size": 2},
        {"quantization": "int8", "gradient_checkpointing": True},
        {"method": "untrained"},
        {"method": "prompting", "shots": 2, "sequence_length": 512},
    ],
    ids=repr,
)
def test_a_trial_takes_the_bytes_and_does_the_flops_that_were_planned(
    tiny_llama: Path, tmp_path: Path, knobs: dict[str, Any]
) -> None:
    trial = make_spec(tiny_llama, **knobs)
    config = json.loads((tiny_llama / "config.json").read_text())
    request = {"id": 1, "trial": trial.to_json(), "config": config, "device": "cpu"}
    [answer] = answers([json.dumps(request)], cache=tmp_path / "predictions")
    told = json.loads(answer)["prediction"]
    found = predict_trial(trial, config, lengths=TokenLengths(None))
    assert json.loads(json.dumps(found.to_json())) == told
    assert found.knows_lengths
    made = make_trial(trial, tmp_path)
    made.folder.write_estimate(told["prediction"])  # its rates are what FLOPs are counted by
    list(train(made))
    summary = made.folder.summary()
    assert summary is not None
    metrics = summary["metrics"]
    if found.train_flops:
        assert metrics["train_flops"] == pytest.approx(found.train_flops, rel=1e-6)
        _close(found.prediction.train_memory_bytes, metrics["train_peak_memory_bytes"])
    _close(found.prediction.eval_memory_bytes, metrics["eval_peak_memory_bytes"])
    assert metrics["eval_flops"] == pytest.approx(found.eval_flops, rel=0.35)  # answers vary


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 3])
def test_a_trial_that_scores_labels_takes_the_bytes_and_does_the_flops_that_were_planned(
    shots: int, tiny_llama: Path, tmp_path: Path
) -> None:
    options = {**own_file.classification(tmp_path), "labels": ["positive", "negative", "neutral"]}
    asked: dict[str, Any] = {"prompt": "default", "answer": "likelihood"}
    prompting = make_spec(tiny_llama, method="prompting", shots=shots, sequence_length=500, **asked)
    trial = replace(
        prompting,
        task="classification",
        task_options=options,
        task_identity=task_identity(make_task("classification", {**options, **asked})),
    )
    config = json.loads((tiny_llama / "config.json").read_text())
    found = predict_trial(trial, config, lengths=TokenLengths(None))
    assert (found.workload.eval_beginning > 0) is (shots > 0)
    made = make_trial(trial, tmp_path)
    made.folder.write_estimate(found.prediction.to_json())
    list(train(made))
    metrics = (made.folder.summary() or {})["metrics"]
    _close(found.prediction.eval_memory_bytes, metrics["eval_peak_memory_bytes"])
    assert metrics["eval_flops"] == pytest.approx(found.eval_flops, rel=1e-6)


def _close(predicted: int, measured: float) -> None:
    allowed = max(UNDER_ALLOWANCE * measured, UNDER_ALLOWANCE_BYTES)
    assert measured - allowed <= predicted <= measured * 1.05 + UNDER_ALLOWANCE_BYTES
