"""Shots: which training examples stand before a question, and how they are written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_tokenizer
from tests.trainables.tasks.own_data import own_file
from trainables.data.encoding import Encoded, encode
from trainables.data.shots import SELECTIONS, Shots, shot_values, shots_for
from trainables.data.token_rows import TooLong
from trainables.methods.prompting import SHOT_SELECTIONS
from trainables.spec.knobs import canonical
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS, Task

CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return make_task("classification", own_file.classification(tmp_path))


def _knobs(**given: Any) -> dict[str, Any]:
    return canonical({"model": "m", "method": "prompting", **given})


def _shots(task: Task, **given: Any) -> Shots:
    found = shots_for(_knobs(**given), task)
    assert found is not None
    return found


def test_every_selection_has_its_name() -> None:
    assert tuple(SELECTIONS) == SHOT_SELECTIONS


@pytest.mark.parametrize("selection", SELECTIONS)
def test_shots_are_so_many_other_training_examples_and_the_same_again(
    selection: str, task: Task
) -> None:
    given = {"shots": 5, "shot_selection": selection}
    one, again = _shots(task, **given), _shots(task, **given)
    train = {example.id: example for example in task.load("train")}
    for split in SPLITS:
        for example in task.load(split):
            chosen = one.of(example)
            assert [shot.id for shot in chosen] == [shot.id for shot in again.of(example)]
            assert len({shot.id for shot in chosen}) == 5 and {s.id for s in chosen} <= set(train)
            assert all(shot.group != example.group for shot in chosen)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_more_shots_than_there_are_is_all_there_are(selection: str, task: Task) -> None:
    example = task.load("report")[0]
    chosen = _shots(task, shots=500, shot_selection=selection).of(example)
    assert len(chosen) == len(task.load("train"))


@pytest.mark.parametrize("selection", ["random", "balanced"])
def test_another_seed_draws_others(selection: str, task: Task) -> None:
    example = task.load("report")[0]
    drawn = [
        [s.id for s in _shots(task, shots=4, shot_selection=selection, shot_seed=seed).of(example)]
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


def test_balanced_shots_have_every_label_as_often(task: Task) -> None:
    chosen = _shots(task, shots=6, shot_selection="balanced").of(task.load("report")[0])
    assert set(Counter(task.gold(shot) for shot in chosen).values()) == {2}


@pytest.mark.parametrize("selection", ["similar", "keywords"])
def test_the_nearest_example_stands_nearest_to_the_question(selection: str, tmp_path: Path) -> None:
    rows = [(f"word{at} common text of number {at}", "a" if at % 2 else "b") for at in range(60)]
    rows += [("the quokka rose", "a"), ("a quokka fell too", "b")]
    file = own_file.write_csv(tmp_path / "a.csv", rows)
    asked = own_file.write_csv(tmp_path / "b.csv", [("one quokka more", "a"), ("or not", "b")])
    task = make_task("classification", {"train": str(file), "selection": str(asked)})
    example = next(
        each for split in SPLITS[1:] for each in task.load(split) if "quokka" in str(each.record)
    )
    chosen = _shots(task, shots=3, shot_selection=selection).of(example)
    assert all("quokka" in shot.record["question"] for shot in chosen[-2:])


def _encoded(task: Task, *, limit: int = 400, template: str | None = None) -> tuple[Any, Encoded]:
    tokenizer = make_tokenizer(chat_template=template)
    shots = _shots(task, shots=2)
    examples = task.load("report")[:2]
    return tokenizer, encode(task, examples, tokenizer, sequence_length=limit, shots=shots)


def test_a_plain_prompt_has_answered_questions_before_it(task: Task) -> None:
    tokenizer, encoded = _encoded(task)
    first, second = _shots(task, shots=2).of(encoded.examples[0])
    expected = "".join(
        f"{task.prompt(shot).text} {task.target(shot)}\n\n" for shot in (first, second)
    )
    text = tokenizer.decode(encoded.prompts[0], skip_special_tokens=True)
    assert text == expected + task.prompt(encoded.examples[0]).text
    assert encoded.shots[0] == (first.id, second.id)


def test_in_a_chat_shots_are_earlier_turns(task: Task) -> None:
    tokenizer, encoded = _encoded(task, template=CHAT)
    text = tokenizer.decode(encoded.prompts[0])
    assert text.count("<|user|>") == text.count("<|assistant|>") == 3
    for shot in _shots(task, shots=2).of(encoded.examples[0]):
        assert f"{task.prompt(shot).text}</s><|assistant|>{task.target(shot)}</s>" in text


def test_shots_that_do_not_fit_are_left_out_before_the_question_is_cut(task: Task) -> None:
    _, whole = _encoded(task)
    alone = len(encode(task, whole.examples, make_tokenizer(), sequence_length=400).prompts[0])
    answer = len(whole.completions[0])
    _, cut = _encoded(task, limit=alone + answer + 3)
    assert cut.shots[0] == () and len(cut.prompts[0]) == alone and not cut.cut[0]
    _, one = _encoded(task, limit=len(whole.prompts[0]) + answer - 1)
    assert one.shots[0] == whole.shots[0][1:]
    assert not whole.lost_shots
    needed = len(whole.prompts[0]) + answer
    assert one.lost_shots[0] == TooLong(whole.examples[0].id, needed)


def test_without_shots_nothing_of_them_is_written() -> None:
    assert set(shot_values(_knobs(shots=0, shot_selection="similar"))) == {"shots"}
    assert _knobs(shots=0, shot_seed=3) == _knobs(shots=0)
    assert not shot_values(canonical({"model": "m"}))
