"""The likeliest choice is the one of a computation of each by itself, whatever the batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import make_spec, shared_base
from tests.trainables.tasks.own_data import own_file
from trainables.data.encoding import Encoded, encode
from trainables.data.shots import shots_for
from trainables.evaluation.evaluate import answer
from trainables.evaluation.likelihood import continued_log_likelihoods
from trainables.models.base import Base
from trainables.models.states import states_of
from trainables.tasks.registry import make_task
from trainables.tasks.task import Task

LABELS = {"positive": ["it rose, and by much"], "negative": ["fell"], "neutral": ["same as before"]}


@pytest.fixture(scope="module")
def base(tiny_llama: Path) -> Base:
    return shared_base(make_spec(tiny_llama))


def _asked(folder: Path, base: Base, answer_by: str, *, shots: int = 0) -> tuple[Task, Encoded]:
    options = {**own_file.classification(folder), "answer": answer_by, "labels": LABELS}
    task = make_task("classification", options)
    examples = task.load("selection")[:9]
    shown = shots_for({"shots": shots, "shot_selection": "random", "shot_seed": 0}, task)
    return task, encode(task, examples, base.tokenizer, sequence_length=500, shots=shown)


@pytest.mark.parametrize("answer_by", ["likelihood", "likelihood_per_token"])
@pytest.mark.parametrize("rows", [1, 4, 32])
@pytest.mark.parametrize("shots", [0, 3])
def test_it_is_the_likeliest_one_by_one(
    answer_by: str, rows: int, shots: int, base: Base, tmp_path: Path
) -> None:
    task, encoded = _asked(tmp_path, base, answer_by, shots=shots)
    assert bool(encoded.beginning) is bool(shots)
    execution = replace(make_spec(Path(base.model.name_or_path)).execution, eval_batch_size=rows)
    found, _ = answer(
        base.model,
        base,
        task=task,
        encoded=encoded,
        asked=range(len(encoded)),
        execution=execution,
    )
    expected = [
        _one_by_one(base.model, prompt, choices, per_token=answer_by != "likelihood")
        for prompt, choices in zip(encoded.prompts, encoded.choices, strict=True)
    ]
    assert [row["prediction"] for row in found] == expected
    assert not any(row["not_followed"] for row in found)


def _one_by_one(model: Any, prompt: Any, choices: Any, *, per_token: bool) -> str:
    scores = {}
    for choice in choices:
        ids = torch.tensor([[*prompt, *choice.tokens]])
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
        each = logits.log_softmax(-1)[range(len(choice.tokens)), list(choice.tokens)]
        scores[choice.text] = float(each.mean() if per_token else each.sum())
    return str(max(scores, key=lambda text: scores[text]))


def test_so_it_is_where_no_states_are_kept(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("evaluate", "likelihood"):
        name = f"trainables.evaluation.{module}.has_states"
        monkeypatch.setattr(name, lambda config: False)
    test_it_is_the_likeliest_one_by_one("likelihood", 4, 3, base, tmp_path)


def test_scores_are_those_of_each_choice_in_a_row_of_its_own(base: Base, tmp_path: Path) -> None:
    _, encoded = _asked(tmp_path, base, "likelihood")
    prompts = [torch.tensor([prompt]) for prompt in encoded.prompts]
    with torch.no_grad():
        for prompt, choices in zip(prompts, encoded.choices, strict=True):
            states = states_of(base.model, prompt[:, :-1], torch.ones_like(prompt[:, :-1]))
            for choice in choices:
                labels = torch.tensor([choice.tokens])
                found = continued_log_likelihoods(base.model, states, prompt[:, -1:], labels)
                ids = torch.cat([prompt, labels], dim=1)
                logits = base.model(input_ids=ids).logits[0, prompt.shape[1] - 1 : -1].double()
                each = logits.log_softmax(-1)[range(len(choice.tokens)), list(choice.tokens)]
                assert found.item() == pytest.approx(float(each.sum()), rel=1e-5)


def test_a_choice_has_the_tokens_of_its_target_without_an_end(base: Base, tmp_path: Path) -> None:
    task, encoded = _asked(tmp_path, base, "likelihood")
    end = base.tokenizer.eos_token_id
    for example, completion, choices in zip(
        encoded.examples, encoded.completions, encoded.choices, strict=True
    ):
        own = next(each for each in choices if each.text == task.target(example))
        assert completion == (*own.tokens, end)
