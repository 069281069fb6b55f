"""The contract of every row of TASKS, as `trainables.tasks.task.Task` states it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.hard_answers import ANSWERS, NUMBERS, PROGRAMS
from tests.contracts.letters_task import Letters, LettersByError
from tests.trainables.tasks.financial import financial_files
from tests.trainables.tasks.own_data import own_file
from tests.trainables.tasks.tatqa import tatqa_file
from trainables.errors import InputError
from trainables.tasks.registry import TASKS, find_task, make_task
from trainables.tasks.task import SPLITS, Task

GENERATED = {"kinds": ["latest", "rose"], "train": 12, "selection": 8, "report": 6, "seed": 5}
OPTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "finqa": lambda folder: {"generated": GENERATED},
    "tatqa": tatqa_file.options,
    "completion": own_file.completion,
    "classification": own_file.classification,
    "tagging": own_file.tagging,
    "fpb": financial_files.fpb,
    "fomc": financial_files.fomc,
    "numclaim": financial_files.numclaim,
    Letters.name: lambda folder: {},
    LettersByError.name: lambda folder: {},
}
NAMES = [*TASKS, Letters.name, LettersByError.name]  # those of another package keep the same


@pytest.fixture(autouse=True)
def tasks_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, Letters.name, lambda: Letters)
    monkeypatch.setitem(TASKS, LettersByError.name, lambda: LettersByError)


@pytest.fixture(params=NAMES)
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
    """By every metric: no answer is better than the one that a model learns."""
    examples = task.load(split)
    measured = task.aggregate([task.score(example, task.target(example)) for example in examples])
    for metric in task.metrics.specs:
        if metric.name in measured:
            assert measured[metric.name] == (1.0 if metric.direction == "maximize" else 0.0)


def test_an_empty_answer_is_wrong(task: Task) -> None:
    verdicts = [metric for metric in task.metrics.specs if metric.tells_right_from_wrong]
    assert verdicts or task.metrics.verdict is None
    for example in task.load("train"):
        scores = task.score(example, "")
        assert not any(scores[metric.per_question_key] for metric in verdicts)


def test_the_metrics_are_what_is_measured(task: Task) -> None:
    """Values of a question are where the declaration says, and their mean is the metric."""
    scores = [task.score(example, task.target(example)) for example in task.load("train")]
    measured = task.aggregate(scores)
    names = [metric.name for metric in task.metrics.specs]
    assert len(set(names)) == len(names) and task.metrics.of_trivial_baselines.name in names
    for metric in task.metrics.specs:
        assert metric.name in measured
        format(1.0, metric.format)
        if not metric.per_question_key:  # of a split as a whole
            continue
        values = [
            score[metric.per_question_key]
            for score in scores
            if not metric.among or score[metric.among]
        ]
        assert values and measured[metric.name] == pytest.approx(sum(values) / len(values))
        if metric.is_share_of_questions:
            assert {bool(value) for value in values} == set(values)


def test_the_gold_is_right_as_a_prediction_from_elsewhere(task: Task) -> None:
    examples = task.load("selection")
    texts = [f"It is clear.\nAnswer: {task.gold_text(example)}" for example in examples]
    scores = [
        task.score_prediction(example, text, marker_required=True)
        for example, text in zip(examples, texts, strict=True)
    ]
    primary = task.metrics.primary
    of_targets = [task.score(example, task.target(example)) for example in examples]
    assert task.aggregate(scores)[primary.name] == task.aggregate(of_targets)[primary.name]
    nothing = [task.score_prediction(each, None, marker_required=False) for each in examples]
    worse = primary.gain(task.aggregate(nothing)[primary.name])
    assert worse < primary.gain(task.aggregate(scores)[primary.name])
    assert task.rule_version and task.max_new_tokens > 0


def test_trivial_baselines_are_values_of_their_metric(task: Task) -> None:
    metric = task.metrics.of_trivial_baselines
    for value in task.trivial_baselines(task.load("report")).values():
        assert value >= 0
        if metric.is_share_of_questions:
            assert value <= 1


@pytest.mark.parametrize("name", NAMES)
def test_every_named_prompt_can_be_used(name: str, tmp_path: Path) -> None:
    options = OPTIONS[name](tmp_path)
    kind = find_task(name)
    assert "default" in kind.prompts or not kind.prompts
    for prompt in kind.prompts:
        assert kind.canonical_prompt(prompt, "answer") in kind.prompts
        asked = make_task(name, {**options, "prompt": prompt})
        assert asked.prompt(asked.load("train")[0]).text


@pytest.mark.parametrize("name", NAMES)
def test_a_file_to_download_is_named_for_each_split(name: str) -> None:
    source = find_task(name).source
    if source is not None:
        assert set(source.splits) == set(SPLITS)
        assert set(source.splits.values()) <= source.blobs.keys()


def test_a_reason_says_something_of_every_answer(task: Task) -> None:
    for example in task.load("train"):
        reasons = [task.reason(example, text) for text in (task.target(example), "", "?! ...")]
        assert all(reasons) and reasons[0] != reasons[1]


def test_an_answer_has_a_meaning_that_votes_are_counted_by(task: Task) -> None:
    for example in task.load("train"):
        target = task.target(example)
        meaning = task.meaning(example, target)
        assert meaning and meaning == task.meaning(example, f" {target}")
        assert task.meaning(example, "") == ""


def test_prompts_and_targets_join_by_one_space(task: Task) -> None:
    for example in task.load("train"):
        prompt, target = task.prompt(example), task.target(example)
        assert prompt.text and target and not (task.stop and task.stop in target)
        if prompt.reply:
            assert not prompt.text.endswith("\n") and not prompt.reply.endswith(" ")
            assert not target.startswith(" ")
        else:
            assert prompt.joint == ("" if prompt.text[-1].isspace() else " ")


def test_loading_twice_gives_the_same_and_the_digest_names_the_content(task: Task) -> None:
    assert task.load("train") == task.load("train")
    digests = [task.data_digest(split) for split in SPLITS]
    assert len(set(digests)) == len(SPLITS)
    assert digests == [task.data_digest(split) for split in SPLITS]


def test_facts_say_what_was_asked(task: Task) -> None:
    facts = task.facts("selection")
    assert ("context" in facts) == ("evidence" in facts)  # of tasks about pages
    assert facts["examples"] == len(task.load("selection"))


def test_metrics_of_no_question_are_refused(task: Task) -> None:
    with pytest.raises(ValueError, match="no questions"):
        task.aggregate([])


def test_slices_are_words_and_finite_numbers(task: Task) -> None:
    found = [dict(task.slices(example)) for example in task.load("selection")]
    values = [value for each in found for value in each.values()]
    assert values
    assert all(
        isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))
        for value in values
    )
    assert found == [dict(task.slices(example)) for example in task.load("selection")]


@pytest.mark.parametrize("name", NAMES)
def test_options_that_it_does_not_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown option"):
        make_task(name, {**OPTIONS[name](tmp_path), "nonsense": 1})


def test_no_answer_raises_or_takes_long(task: Task, tmp_path: Path) -> None:
    """Whatever a model writes is right or wrong, and the rule can say why."""
    for target in task.targets:
        asked = make_task(task.name, {**OPTIONS[task.name](tmp_path), "target": target})
        examples = asked.load("train")[:4]  # of TAT-QA, one of each kind of answer
        for text in [*NUMBERS, *PROGRAMS] if target == "program" else ANSWERS:
            started = time.process_time()
            scores = [asked.score(example, text) for example in examples]
            assert all(asked.reason(example, text) for example in examples)
            for example in examples:
                asked.score_prediction(example, text, marker_required=False)
            assert all(map(math.isfinite, asked.aggregate(scores).values()))
            assert time.process_time() - started < 2, f"{text[:40]!r}, {len(text)} characters"
