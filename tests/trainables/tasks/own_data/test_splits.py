"""Splits of one's own rows: a group is in one of them, an input in one, and the seed decides."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.own_data.own_file import sentences, write_csv
from trainables.errors import InputError
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS

SHARES = {"selection": 0.2, "report": 0.3}


def _inputs(options: dict[str, Any]) -> dict[str, list[str]]:
    task = make_task("classification", options)
    return {split: [each.record["question"] for each in task.load(split)] for split in SPLITS}


def test_shares_are_as_asked_and_do_not_depend_on_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = sentences(100)
    file = write_csv(tmp_path / "a.csv", rows)
    found = _inputs({"file": str(file), "split": SHARES})
    assert {split: len(texts) for split, texts in found.items()} == {
        "train": 50,
        "selection": 20,
        "report": 30,
    }
    random.Random(1).shuffle(rows)
    shuffled = _inputs({"file": str(write_csv(tmp_path / "b.csv", rows)), "split": SHARES})
    assert {split: sorted(texts) for split, texts in found.items()} == {
        split: sorted(texts) for split, texts in shuffled.items()
    }
    other = _inputs({"file": str(file), "split": {**SHARES, "seed": 8}})
    assert sorted(other["report"]) != sorted(found["report"])


def test_a_group_is_never_in_two_splits(tmp_path: Path) -> None:
    rows = [(*pair, f"company {at // 5}") for at, pair in enumerate(sentences(100))]
    file = write_csv(tmp_path / "a.csv", rows, columns=("sentence", "label", "company"))
    task = make_task("classification", {"file": str(file), "split": {**SHARES, "by": "company"}})
    groups = [{e.record["columns"]["company"] for e in task.load(split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20


def test_the_same_input_stays_in_one_split_of_one_file(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", sentences(30) * 2)
    found = _inputs({"file": str(file), "split": SHARES})
    assert not set(found["train"]) & (set(found["selection"]) | set(found["report"]))


def _three(folder: Path) -> dict[str, Any]:
    rows = sentences(30)
    parts = {"train": rows[:20], "selection": rows[18:25], "report": rows[25:]}
    return {name: str(write_csv(folder / f"{name}.csv", part)) for name, part in parts.items()}


def test_an_input_in_two_splits_is_refused_with_both_lines(tmp_path: Path) -> None:
    options = _three(tmp_path)
    with pytest.raises(InputError) as error:
        make_task("classification", options).load("train")
    first = f"{options['selection']}:2: this input of the selection split is also one of the train"
    assert error.value.messages[0].startswith(first)
    assert error.value.messages[0].endswith(f"{options['train']}:20.")
    assert "data.allow_duplicates: true" in error.value.messages[-1]
    meant = make_task("classification", {**options, "allow_duplicates": True})
    assert len(meant.load("selection")) == 7


def test_without_a_report_file_the_selection_file_is_halved(tmp_path: Path) -> None:
    options = {**_three(tmp_path), "allow_duplicates": True}
    del options["report"]
    task = make_task("classification", options)
    assert len(task.load("selection")) + len(task.load("report")) == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": {"selection": 0, "report": 0.1}}, r"data\.split\.selection: got 0; needs a sha"),
        ({"split": {"selection": 0.5, "report": 0.5}}, r"leave nothing for train"),
        ({"split": {"selection": 0.1}}, r"data\.split\.report: got None"),
        ({"split": {**SHARES, "seeds": 3}}, r"data\.split\.seeds: unknown key"),
        ({"split": {**SHARES, "seed": "x"}}, r"data\.split\.seed: got 'x'"),
        ({"split": {**SHARES, "by": "firm"}}, r"a\.csv:2: no column 'firm'; there are sentence"),
        ({"split": None}, r"data\.split: "),
        ({"train": "x.csv", "split": SHARES}, r"data\.file: there is data\.train as well"),
    ],
)
def test_wrong_shares_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "a.csv", sentences(20))
    with pytest.raises(InputError, match=message):
        make_task("classification", {"file": str(file), **options}).load("train")


def test_missing_files_are_named() -> None:
    with pytest.raises(InputError, match=r"data\.train and data\.selection: missing"):
        make_task("classification", {})
