"""The TAT-QA task: its files, splits, prompts and facts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.tatqa.tatqa_file import context, contexts, options, question, write
from trainables.errors import InputError
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS
from trainables.tasks.tatqa.files import read_examples


def test_questions_come_in_the_files_order_with_their_context_as_group(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path))
    examples = task.load("train")
    assert [example.id for example in examples[:4]] == [f"train0-{kind}" for kind in "abcd"]
    assert {example.group for example in examples} == {"table-train0", "table-train1"}


def test_the_full_context_is_all_paragraphs_and_the_table(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path))
    text = task.prompt(task.load("train")[0]).text
    assert "Sales fell. Amounts are in millions.\n | 2019\nRevenue | $ 1,train00.5" in text
    assert text.endswith("Question: What is train0-a?")


def test_evidence_is_the_relevant_paragraphs_and_the_table(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path, context="evidence"))
    text = task.prompt(task.load("train")[0]).text
    assert "Sales fell." not in text
    assert "Amounts are in millions.\n | 2019\nRevenue | $ 1,train00.5" in text
    assert task.facts("train") == {"context": "evidence", "evidence": "gold", "examples": 8}


def test_evidence_from_the_text_alone_leaves_the_table_out(tmp_path: Path) -> None:
    asked = question("q", ["x"], answer_type="span", answer_from="text")
    (example,) = read_examples(write(tmp_path / "file.json", [context("0", asked)]))
    assert example.record["evidence"] == ["Amounts are in millions."]


def test_without_a_report_file_the_selection_file_is_halved_by_context(tmp_path: Path) -> None:
    given = options(tmp_path)
    del given["report"]
    write(Path(given["selection"]), contexts("selection", 6))
    task = make_task("tatqa", given)
    selection, report = ({x.group for x in task.load(split)} for split in ("selection", "report"))
    assert len(selection) == len(report) == 3
    assert not selection & report


def test_the_default_prompt_is_tatqas_own(tmp_path: Path) -> None:
    named = make_task("tatqa", options(tmp_path, prompt="tatqa"))
    assert make_task("tatqa", options(tmp_path, prompt="default")).prompt_digest == (
        named.prompt_digest
    )
    assert make_task("tatqa", options(tmp_path, prompt="short")).prompt_digest != (
        named.prompt_digest
    )


def test_only_the_first_line_of_a_completion_counts(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path))
    computed = task.load("train")[2]
    assert task.score(computed, " -22.22 percent\nbecause")["em_acc"]
    assert not task.score(computed, "because\n-22.22 percent")["em_acc"]


@pytest.mark.parametrize(
    "items",
    [
        ["net sales of\nthe\r\nyear"],
        ["12\nmillion"],
        ["a\u2028b", "2019"],
        ["\nthe year 2019"],
        ["$4.5"],
    ],
)
def test_a_gold_of_several_lines_is_learnt_in_one_that_is_right(
    tmp_path: Path, items: list[str]
) -> None:
    asked = question("q", items, answer_type="multi-span")
    (example,) = read_examples(write(tmp_path / "file.json", [context("0", asked)]))
    task = make_task("tatqa", options(tmp_path))
    target = task.target(example)
    assert len(target.splitlines()) == 1
    assert task.score(example, f" {target}\n")["em_acc"]
    assert len(items) > 1 or len(items[0].splitlines()) > 1 or target == items[0]


@pytest.mark.parametrize("split", SPLITS)
def test_one_split_alone_needs_no_other_file(tmp_path: Path, split: str) -> None:
    given = options(tmp_path)
    whole = make_task("tatqa", given)
    absent = {other: str(tmp_path / "absent.json") for other in SPLITS if other != split}
    alone = make_task("tatqa", {split: given[split], **absent, "asked": split})
    assert alone.load(split) == whole.load(split)
    assert alone.data_digest(split) == whole.data_digest(split)
    halved = {name: given[name] for name in ("train", "selection")}
    if split != "train":
        write(Path(given["selection"]), contexts("selection", 6))
        half = make_task("tatqa", {"selection": given["selection"], "asked": split})
        assert half.load(split) == make_task("tatqa", halved).load(split)
    with pytest.raises(InputError, match=r"data\.(train|selection): missing"):
        make_task("tatqa", {"asked": split})


def test_metrics_hold_f1_and_the_share_of_computed_answers(tmp_path: Path) -> None:
    task = make_task("tatqa", options(tmp_path))
    written = ["$1,496.5 million", "2019", "-22.22 percent", "1"]
    scores = [task.score(*pair) for pair in zip(task.load("train"), written, strict=False)]
    assert task.aggregate(scores) == {
        "em_acc": 0.5,
        "em_acc_strict": 0.5,
        "f1": pytest.approx((1 + 0.67 + 1 + 0) / 4),
        "em_acc_numeric": 0.5,
    }


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        make_task("tatqa", {"train": 1, "context": "ful", "targte": "x", "target": "program"})
    text = "\n".join(caught.value.messages)
    assert "data.targte: unknown option. Did you mean 'target'?" in text
    assert "data.selection: missing" in text
    assert "data.train: 1 is not a path" in text
    assert "Did you mean 'full'?" in text
    assert "TAT-QA has no programs" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"answer_type": "date"}, "answer_type is 'date'; it must be one of 'span'"),
        ({"scale": "trillion"}, "scale is 'trillion'; it must be one of '', 'thousand'"),
        ({"answer": "x"}, "answer is 'x'; it does not fit span"),
        ({"answer": []}, "it does not fit span"),
        ({"answer": 10**400, "answer_type": "arithmetic"}, "it does not fit arithmetic"),
        ({"answer": "9" * 5_000, "answer_type": "count"}, "it does not fit count"),
        ({"uid": ""}, "uid is ''; it must be a string that is not empty"),
        ({"rel_paragraphs": None}, "rel_paragraphs must be a list"),
    ],
)
def test_a_faulty_question_is_told_with_its_line(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    value = contexts("x", 2)
    value[1]["questions"][0] |= change
    file = write(tmp_path / "file.json", value)
    second = 1 + file.read_text()[: file.read_text().index("table-x1")].count("\n")
    with pytest.raises(InputError) as caught:
        read_examples(file)
    (message,) = caught.value.messages
    assert told in message
    assert "question 1" in message
    line = int(message.removeprefix(f"{file}:").partition(":")[0])
    assert second - 3 <= line <= second


def test_a_file_without_gold_answers_is_refused(tmp_path: Path) -> None:
    value = contexts("x", 1)
    for asked in value[0]["questions"]:
        del asked["answer"]
    with pytest.raises(InputError, match="give a file with gold answers"):
        read_examples(write(tmp_path / "file.json", value))


def test_a_repeated_question_is_refused(tmp_path: Path) -> None:
    value = contexts("x", 1)
    value[0]["questions"].append(copy.deepcopy(value[0]["questions"][0]))
    with pytest.raises(InputError, match="the uid 'x0-a' is also at"):
        read_examples(write(tmp_path / "file.json", value))


def test_splits_that_share_a_context_are_refused(tmp_path: Path) -> None:
    given = options(tmp_path)
    shared = contexts("train")
    for each in shared:
        for asked in each["questions"]:
            asked["uid"] += "-again"
    write(Path(given["report"]), shared)
    with pytest.raises(InputError, match="the train and report splits share 2 pages"):
        make_task("tatqa", given).load("train")


def test_the_official_files_make_three_splits(shared_data: Path) -> None:
    files = {
        "train": str(shared_data / "tatqa" / "dev.json.gz"),
        "selection": str(shared_data / "tatqa" / "test.json.gz"),
    }
    task = make_task("tatqa", files)
    sizes = {split: len(task.load(split)) for split in SPLITS}
    assert sizes["train"] == 1668
    assert sizes["selection"] + sizes["report"] == 1663
