"""The contract of every row of TASKS, as `trainables.tasks.task.Task` states it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.tatqa import tatqa_file
from trainables.errors import InputError
from trainables.tasks.registry import TASKS, make_task
from trainables.tasks.task import SPLITS, Task

GENERATED = {"kinds": ["latest", "rose"], "train": 12, "selection": 8, "report": 6, "seed": 5}
OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "finqa": lambda folder: {"generated": GENERATED},
    "tatqa": tatqa_file.options,
}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    return make_task(request.param, OPTIONS[request.param](tmp_path))


def test_ids_are_unique_and_groups_belong_to_one_split(task: Task) -> None:
    examples = {split: task.load(split) for split in SPLITS}
    ids = [example.id for split in SPLITS for example in examples[split]]
    assert len(ids) == len(set(ids))
    groups = [{example.group for example in examples[split]} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups))


@pytest.mark.parametrize("split", SPLITS)
def test_the_target_of_every_question_is_right(task: Task, split: str) -> None:
    examples = task.load(split)
    scores = [task.score(example, task.target(example)) for example in examples]
    metrics = task.aggregate(scores)
    assert metrics["em_acc"] == metrics["em_acc_strict"] == 1.0


def test_an_empty_answer_is_wrong(task: Task) -> None:
    for example in task.load("train"):
        flags = task.score(example, "")
        assert not flags["em_acc"] and not flags["em_acc_strict"]


def test_a_reason_says_something_of_every_answer(task: Task) -> None:
    for example in task.load("train"):
        reasons = [task.reason(example, text) for text in (task.target(example), "", "?! ...")]
        assert all(reasons) and reasons[0] != reasons[1]


def test_prompts_and_targets_join_by_one_space(task: Task) -> None:
    for example in task.load("train"):
        prompt, target = task.prompt(example), task.target(example)
        assert prompt.text and not prompt.text.endswith("\n")
        assert prompt.reply and not prompt.reply.endswith(" ")
        assert target and not target.startswith(" ") and "\n" not in target


def test_loading_twice_gives_the_same_and_the_digest_names_the_content(task: Task) -> None:
    assert task.load("train") == task.load("train")
    digests = [task.data_digest(split) for split in SPLITS]
    assert len(set(digests)) == len(SPLITS)
    assert digests == [task.data_digest(split) for split in SPLITS]


def test_facts_say_what_was_asked(task: Task) -> None:
    facts = task.facts("selection")
    assert {"context", "evidence", "examples"} <= facts.keys()
    assert facts["examples"] == len(task.load("selection"))


def test_metrics_of_no_question_are_refused(task: Task) -> None:
    with pytest.raises(ValueError, match="no questions"):
        task.aggregate([])


@pytest.mark.parametrize("name", TASKS)
def test_options_that_it_does_not_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown option"):
        make_task(name, {**OPTIONS[name](tmp_path), "nonsense": 1})
