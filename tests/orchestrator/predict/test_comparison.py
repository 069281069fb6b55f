"""Answers side by side, as text for a terminal and as JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.predict.comparison import (
    Answered,
    Comparison,
    json_lines,
    report,
    shortened,
)
from orchestrator.predict.models import ModelUnderTest, untrained
from orchestrator.predict.worker_process import ModelAnswers
from tests.orchestrator.predict.test_questions import DATA
from tests.orchestrator.run_builder import new_spec, trial_label
from trainables.methods.registry import METHODS
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.registry import TASKS, find_task, make_task
from trainables.tasks.task import Example, Task

METHODS_ASKED = [name for name in METHODS if name != "untrained"]

JUDGED = [task for task in TASKS if find_task(task).metrics.verdict]  # right or wrong answers


def answers(
    task: Task, examples: Sequence[Example], texts: Sequence[str], prompt: str = "the prompt"
) -> ModelAnswers:
    rows = [
        {"id": each.id, "prediction": text, "gold": task.gold(each), **task.score(each, text)}
        for each, text in zip(examples, texts, strict=True)
    ]
    return ModelAnswers([f"{prompt} {each.id}" for each in examples], [False] * len(rows), rows)


def compared(name: str, method: str, folder: Path, **given: Any) -> Comparison:
    """A base that is always wrong, and a trial that is right but for its last answer."""
    task = make_task(name, DATA[name](folder))
    examples = task.load("train")[:3]
    spec = new_spec(method=method, model="base_models/small")
    trial = ModelUnderTest(spec, TrialFolder(folder / spec.trial_id), label=trial_label(spec.knobs))
    base = ModelUnderTest(untrained(spec), base_name="small", label="small none")
    right = [*(task.target(each) for each in examples[:-1]), "?"]
    noted: Mapping[str, Any] = given.pop("noted", {})
    answered = [
        Answered(base, answers(task, examples, ["", "?", "!"]), {}),
        Answered(trial, answers(task, examples, right, **given), noted),
    ]
    return Comparison(task, "train", list(enumerate(examples)), answered)


def picture(found: Comparison, **options: Any) -> str:
    text = io.StringIO()
    report(found, **options).print(text, width=200)
    return text.getvalue()


@pytest.mark.parametrize("method", METHODS_ASKED)
@pytest.mark.parametrize("task", JUDGED)
def test_each_question_shows_prompt_gold_and_every_answer_with_its_reason(
    task: str, method: str, tmp_path: Path
) -> None:
    found = compared(task, method, tmp_path)
    text = picture(found)
    sections = text.split("Question ")[1:]
    for at, (_, example) in enumerate(found.questions):
        lines = [line.split() for line in sections[at].splitlines()]
        assert f"the prompt {example.id}" in sections[at]
        assert f"gold: {found.task.gold_text(example)}" in sections[at]
        base = next(line for line in lines if line[:1] == ["base"])
        kind = found.answered[1].model.kind.split()
        trial = next(line for line in lines if line[: len(kind)] == kind)
        assert "wrong" in base and ("right" if at < 2 else "wrong") in trial
        assert found.task.reason(example, "").split() == ["nothing", "was", "written"]
    assert "nothing was written" in sections[0] and "(nothing)" in sections[0]
    total = sections[-1].split("Over 3 questions")[1]
    assert "0 of 3" in total and "2 of 3" in total and "66.7%" in total


@pytest.mark.parametrize("task", JUDGED)
def test_json_holds_the_same_and_all_scores(task: str, tmp_path: Path) -> None:
    found = compared(task, "lora", tmp_path)
    *questions, last = [json.loads(json.dumps(line)) for line in json_lines(found)]
    assert [each["id"] for each in questions] == [each.id for _, each in found.questions]
    assert questions[2]["index"] == 2 and questions[2]["split"] == "train"
    base, trial = questions[0]["answers"]
    assert (base["right"], trial["right"]) == (False, True)
    metrics = found.task.used_metrics
    assert metrics.verdict and trial["scores"][metrics.verdict.per_question_key]
    assert trial["reason"] and trial["label"].startswith("sma")
    assert trial["noted_prediction"] is None and "prompt" not in trial
    summary = last["summary"]
    assert summary["questions"] == 3 and summary["task"] == task
    assert [each["right"] for each in summary["models"]] == [0, 2]
    assert summary["models"][1]["metrics"][metrics.verdict.name] == pytest.approx(2 / 3)
    assert summary["models"][1]["configuration"]["rank"] == 8


def test_an_answer_other_than_the_noted_one_and_another_prompt_are_told(tmp_path: Path) -> None:
    first = compared("finqa", "lora", tmp_path).questions[0][1]
    noted = {first.id: {"prediction": "another"}}
    found = compared("finqa", "lora", tmp_path, noted=noted, prompt="its own")
    text = " ".join(picture(found).split())
    assert "the sweep noted another answer, 'another'" in text
    assert "was asked in its own prompt" in text
    assert "1 of 3 answers are not those that its sweep noted" in text
    *questions, last = json_lines(found)
    assert questions[0]["answers"][1]["prompt"].startswith("its own")
    assert questions[0]["answers"][1]["noted_prediction"] == "another"
    assert [each["other_than_noted"] for each in last["summary"]["models"]] == [None, 1]


def test_a_prompt_is_shortened_in_the_middle_unless_it_is_wanted_whole(tmp_path: Path) -> None:
    long = "\n".join(f"row {number} {'x' * 300} end" for number in range(40))
    short = shortened(long)
    assert len(short) < 15 * 260 and "26 lines; --whole-prompt shows them" in short
    assert short.startswith("row 0 ") and short.endswith("end") and "row 20" not in short
    assert shortened("a\nb") == "a\nb"
    found = compared("finqa", "lora", tmp_path)
    prompts = [long] * 3
    base = found.answered[0]
    given = ModelAnswers(prompts, base.answers.cut, base.answers.rows)
    whole = Comparison(found.task, "train", found.questions, [Answered(base.model, given, {})])
    assert "row 20" not in picture(whole) and "row 20" in picture(whole, whole_prompt=True)


def test_what_a_model_read_or_wrote_does_not_steer_the_terminal(tmp_path: Path) -> None:
    found = compared("finqa", "lora", tmp_path)
    examples = [each for _, each in found.questions]
    evil = "\x1b[2Jgone [bold]kept[/bold]"
    given = answers(found.task, examples, [evil] * 3, prompt=evil)
    text = picture(
        Comparison(
            found.task, "train", found.questions, [Answered(found.answered[0].model, given, {})]
        )
    )
    assert "\x1b" not in text and text.count("[bold]kept[/bold]") == 6
