"""Evaluation: the loss, the answers, and the end of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny_trials import make_spec, make_trial, shared_base
from trainables.data.batches import IGNORED, collate, length_sorted
from trainables.data.encoding import Encoded
from trainables.evaluation.evaluate import Evaluation, answer, evaluate
from trainables.evaluation.generation import EndOfLine
from trainables.resources.flops import ForwardBackward
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.trial_spec import Execution
from trainables.training.loop import train
from trainables.training.trial import TrialContext


@pytest.fixture
def trial(tiny_llama: Path, tmp_path: Path) -> TrialContext:
    return make_trial(make_spec(tiny_llama, method="untrained"), tmp_path)


def test_the_loss_is_the_mean_over_completion_tokens(trial: TrialContext) -> None:
    encoded = trial.data.split("selection")
    total, count = 0.0, 0
    for index in range(len(encoded)):
        batch = collate(encoded, [index], pad_token=2)
        with torch.no_grad():
            logits = trial.base.model(batch.input_ids).logits[0, :-1]
        labels = batch.labels[0, 1:]
        asked = labels != IGNORED
        log = logits.log_softmax(-1)[asked]
        total -= log.gather(1, labels[asked][:, None]).sum().item()
        count += int(asked.sum())
    assert _evaluate(trial).metrics["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def test_answers_are_those_of_greedy_decoding_without_a_cache_or_padding(
    trial: TrialContext,
) -> None:
    predictions = _evaluate(trial).predictions
    for row, prompt in zip(predictions, trial.data.split("selection").prompts, strict=True):
        assert row["prediction"] == _greedy(trial, prompt)


def test_every_question_has_its_prediction_in_the_order_of_the_data(trial: TrialContext) -> None:
    evaluation = _evaluate(trial)
    examples = trial.data.split("selection").examples
    assert [row["id"] for row in evaluation.predictions] == [example.id for example in examples]
    assert evaluation.metrics["em_acc_questions"] == len(examples) == 8
    for row, example in zip(evaluation.predictions, examples, strict=True):
        assert row["gold"] == trial.data.task.gold(example)
        assert row["question"] == example.record["question"]
        assert row["kind"] == example.kind in ("latest", "prior", "change", "rose")
        assert row["em_acc"] == trial.data.task.score(example, row["prediction"])["em_acc"]


@pytest.mark.parametrize(("method", "batches"), [("untrained", 6), ("lora", 8 + 4)])
def test_every_step_and_every_batch_of_an_evaluation_is_a_heartbeat(
    method: str, batches: int, tiny_llama: Path, tmp_path: Path
) -> None:
    beats: list[int] = []
    trial = make_trial(make_spec(tiny_llama, method=method), tmp_path)
    list(train(replace(trial, heartbeat=lambda: beats.append(1))))
    # batches of at most 4 questions, each for the loss and for the answers; 4 steps of training
    assert len(beats) == batches


def test_some_questions_are_answered_in_the_batches_of_them_all(
    trial: TrialContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[list[int]]] = []
    generate = trial.base.model.generate

    def recorded(*, input_ids: torch.Tensor, **options: object) -> torch.Tensor:
        given.append(input_ids.tolist())
        written: torch.Tensor = generate(input_ids=input_ids, **options)
        return written

    monkeypatch.setattr(trial.base.model, "generate", recorded)
    all_rows = _evaluate(trial).predictions
    batches, given[:] = list(given), []
    assert len(batches) == 2
    encoded = trial.data.split("selection")
    for asked, most in (([3], 1), ([7, 0], 2), (range(8), 2)):
        rows, _ = answer(
            trial.base.model,
            trial.base,
            task=trial.data.task,
            encoded=encoded,
            asked=asked,
            execution=trial.spec.execution,
        )
        assert rows == [all_rows[at] for at in asked]
        assert all(batch in batches for batch in given) and 1 <= len(given) <= most
        given.clear()


def test_evaluating_changes_neither_the_mode_nor_the_random_generator(trial: TrialContext) -> None:
    model = trial.base.model
    before = torch.get_rng_state()
    model.train()
    _evaluate(trial)
    assert model.training
    model.eval()
    _evaluate(trial)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_line_ends_at_the_first_newline_after_something_to_read(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    (newline,) = base.tokenizer("\n", add_special_tokens=False)["input_ids"]
    (digit,) = base.tokenizer("5", add_special_tokens=False)["input_ids"]
    ends = EndOfLine(base)
    rows = torch.tensor([[newline, digit, newline], [digit, digit, digit], [digit, newline, digit]])
    seen = [ends(rows[:, : n + 1], torch.empty(0)).tolist() for n in range(3)]
    assert seen == [[False, False, False], [False, False, True], [True, False, False]]


def test_a_prompt_near_the_last_position_does_not_cut_its_neighbours_short(
    trial: TrialContext,
) -> None:
    encoded = trial.data.split("selection")
    full = (encoded.prompts[0] * 10)[: 512 - 2]
    crowded = replace(encoded, prompts=(full, *encoded.prompts[1:]))
    alone, beside = (_evaluate(trial, given).predictions for given in (encoded, crowded))
    assert [row["prediction"] for row in beside[1:]] == [row["prediction"] for row in alone[1:]]
    short = beside[0]["prediction"]
    assert len(trial.base.tokenizer(short, add_special_tokens=False)["input_ids"]) <= 8


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_beginning_that_is_computed_once_changes_no_answer(
    rows: int, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, method="prompting", shots=2, sequence_length=512)
    trial = make_trial(spec, tmp_path)
    encoded = trial.data.split("selection")
    assert encoded.beginning > 100
    trial = replace(trial, spec=replace(spec, execution=Execution(rows, max_new_tokens=8)))
    once, each_time = (
        _evaluate(trial, replace(encoded, beginning=at)) for at in (encoded.beginning, 0)
    )
    assert once.predictions == each_time.predictions
    assert once.metrics == pytest.approx(each_time.metrics, rel=1e-6)
    assert once.work[0] == ForwardBackward(1, encoded.beginning, 1)
    assert {one.known for one in once.work[1:]} == {encoded.beginning}


def test_batches_hold_every_index_once_the_longest_first() -> None:
    lengths = [3, 9, 9, 1, 5]
    assert length_sorted(lengths, batch_size=2) == [[1, 2], [4, 0], [3]]
    assert length_sorted([], batch_size=2) == []


def _evaluate(trial: TrialContext, encoded: Encoded | None = None) -> Evaluation:
    return evaluate(
        trial.base.model,
        trial.base,
        task=trial.data.task,
        encoded=encoded or trial.data.split("selection"),
        execution=trial.spec.execution,
        peak=PeakMemory(trial.base.model, trial.base.device),
    )


def _greedy(trial: TrialContext, prompt: tuple[int, ...]) -> str:
    written: list[int] = []
    for token in _most_likely(trial, prompt, written):
        written.append(token)
        text = trial.base.tokenizer.decode(written, skip_special_tokens=True)
        ended = token in trial.base.end_tokens or "\n" in text.strip(" ").lstrip("\n")
        if ended or len(written) == trial.spec.execution.max_new_tokens:
            break
    text = trial.base.tokenizer.decode(written, skip_special_tokens=True)
    return str(text.strip().partition("\n")[0].rstrip())


def _most_likely(trial: TrialContext, prompt: tuple[int, ...], written: list[int]) -> Iterator[int]:
    while True:
        ids = torch.tensor([[*prompt, *written]])
        with torch.no_grad():
            yield int(trial.base.model(ids).logits[0, -1].argmax())
