"""The financial tasks read what is published, and keep its splits."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sklearn.model_selection import train_test_split

from tests.trainables.tasks.financial import financial_files
from trainables.errors import InputError
from trainables.tasks.download import blob_id
from trainables.tasks.financial.fpb import FPB, read_sentences
from trainables.tasks.financial.labelled import SPLIT_SEEDS, LabelledSentences
from trainables.tasks.registry import find_task, make_task
from trainables.tasks.task import SPLITS

DATA = Path(os.environ.get("SWEEP_DATA", ""))
needs_data = pytest.mark.skipif(not os.environ.get("SWEEP_DATA"), reason="SWEEP_DATA is not set")


def _questions(task: Any, split: str) -> list[str]:
    return [example.record["question"] for example in task.load(split)]


@pytest.mark.parametrize("seed", SPLIT_SEEDS)
def test_the_test_split_is_the_published_one(seed: int, tmp_path: Path) -> None:
    options = {**financial_files.fpb(tmp_path), "split_seed": seed}
    task = make_task("fpb", options)
    rows = read_sentences(tmp_path, "all")
    _, test = train_test_split(range(len(rows)), test_size=0.2, random_state=seed)
    assert _questions(task, "report") == [rows[at][0] for at in test]
    train, selection = _questions(task, "train"), _questions(task, "selection")
    assert len(train) + len(selection) == 24 and len(selection) == 2
    assert not set(train) & set(selection)
    assert "Umsätze @ home" in train[0]


def test_trained_on_one_level_and_judged_on_another(tmp_path: Path) -> None:
    options = financial_files.fpb(tmp_path)
    task = make_task("fpb", {**options, "agreement": 50, "judged_on": "all"})
    alone = make_task("fpb", options)
    assert _questions(task, "report") == _questions(alone, "report")
    trained = set(_questions(task, "train")) | set(_questions(task, "selection"))
    assert len(trained) == 60 - 6 and not trained & set(_questions(task, "report"))
    assert task.facts("train")["agreement"] == "50"
    assert task.data_digest("train") != alone.data_digest("train")


def test_workbooks_are_read_as_json_lines_are(tmp_path: Path) -> None:
    options = financial_files.fomc(tmp_path / "lines")
    books = tmp_path / "books" / "training_data"
    books.mkdir(parents=True)
    for part in ("train", "test"):
        lines = (tmp_path / "lines" / f"data-{part}-5768.jsonl").read_text().splitlines()
        book = openpyxl.Workbook()
        book.active.append(["index", "sentence", "year", "label"])
        for at, line in enumerate(lines):
            row = json.loads(line)
            book.active.append([at, row["sentence"], 2001, row["label"]])
        book.save(books / f"lab-manual-split-combine-{part}-5768.xlsx")
    ours, theirs = make_task("fomc", options), make_task("fomc", {"folder": str(books.parent)})
    for split in SPLITS:
        assert _questions(ours, split) == _questions(theirs, split)
        golds = [[task.gold(each) for each in task.load(split)] for task in (ours, theirs)]
        assert golds[0] == golds[1]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fpb", {"agreement": 60}, r"data\.agreement: got 60; needs one of 50, 66, 75, all"),
        ("fpb", {"split_seed": 1}, r"space\.split_seed: got 1; needs one of 5768, 78516, 944601"),
        ("fpb", {"folder": "nowhere"}, r"data\.folder: got 'nowhere'; needs the folder"),
        ("fomc", {"train": "a.csv"}, r"data\.train: unknown option"),
    ],
)
def test_wrong_options_are_refused(
    name: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = getattr(financial_files, name)(tmp_path)
    with pytest.raises(InputError, match=message):
        make_task(name, {**given, **options})


def test_no_folder_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"data\.folder: missing"):
        make_task("numclaim", {}).load("train")


def test_lines_without_a_label_are_named(tmp_path: Path) -> None:
    options = financial_files.fpb(tmp_path)
    file = tmp_path / "Sentences_75Agree.txt"
    file.write_bytes(b"One rose .@positive\r\nTwo fell .\r\nThree .@good\r\n")
    with pytest.raises(InputError, match=r"75Agree\.txt:2: no sentence@label: 'Two fell \.'"):
        make_task("fpb", {**options, "agreement": 75}).load("train")


def test_a_file_that_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    options = financial_files.numclaim(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other-train-5768.csv").write_text("text,label\n")
    with pytest.raises(InputError, match=r"needs one file named \.\.\.train-5768 in .*; there is "):
        make_task("numclaim", options).load("train")


def test_entities_of_tokens_are_listed_with_the_words_for_their_labels(tmp_path: Path) -> None:
    task = make_task("finer", financial_files.finer(tmp_path))
    assert [len(task.load(split)) for split in SPLITS] == [12, 6, 6]
    first, second, third = task.load("train")[:3]
    assert task.target(first) == "none" and first.record["question"] == "Nothing rose 0"
    assert task.target(second) == "None: person; Umsatz 1 AG: organization; Bonn: location"
    assert task.gold(third) == "Bo: PER; Umsatz 2 AG: ORG; Bonn: LOC"
    assert "Labels: person, location, organization." in task.prompt(first).text
    assert task.score(second, "Bonn: location; None: organization")["entities_right"] == 1
    assert task.facts("report") == {"examples": 6, "also_trained": 0}
    nothing = task.aggregate([task.score(each, "none") for each in task.load("report")])
    assert nothing["entity_f1"] == 0.0 < nothing["all_entities"]


def test_tokens_are_labelled_one_a_line(tmp_path: Path) -> None:
    task = make_task("finer", {**financial_files.finer(tmp_path), "target": "labels"})
    nothing, example = task.load("train")[:2]
    text = "None left Umsatz 1 AG in Bonn"
    lines = ["person_b", "other", "organization_b", "organization_i", "organization_i", "other"]
    assert example.record["question"] == text
    assert task.target(example) == "\n".join([*lines, "location_b"])
    prompt = task.prompt(example)
    assert (
        text.replace(" ", "\n") in prompt.text and "person, location, organization" in prompt.text
    )
    assert prompt.text.endswith("Labels:\n") and prompt.joint == "" and task.stop is None
    of_gold = [task.score(each, task.target(each)) for each in task.load("train")]
    assert task.aggregate(of_gold)["entity_f1"] == task.aggregate(of_gold)["all_entities"] == 1.0
    one_short = task.score(example, "\n".join(lines))
    assert (one_short["entities_right"], one_short["entities_answered"]) == (2, 2)
    wrong = task.score(example, "Person_B\nnoise\nlocation_b\nlocation_i\norganization_i")
    assert (wrong["entities_right"], wrong["entities_answered"]) == (1, 3)
    assert not task.score(nothing, "")["all_entities"] and task.score(nothing, "")["not_followed"]
    more = task.target(nothing) + "\nperson_b\nperson_b"
    assert task.score(nothing, more) == task.score(nothing, task.target(nothing))
    with pytest.raises(InputError, match="no column 'tags of tokens'"):
        named = {**financial_files.finer(tmp_path), "prompt": "{input} {tags of tokens}"}
        make_task("finer", named).load("train")


@needs_data
@pytest.mark.parametrize("seed", SPLIT_SEEDS)
def test_the_real_splits_are_the_published_ones(seed: int) -> None:
    folder = DATA / "fpb"
    published = json.loads(gzip.decompress((folder / "splits_allagree.json.gz").read_bytes()))
    task = make_task("fpb", {"folder": str(folder), "split_seed": seed})
    assert isinstance(task, FPB)
    rows = [row.place for _, _, row in read_sentences(folder, "all")]
    for part, found in zip(("train", "test"), task.published(), strict=True):
        wanted = [rows[at] for at in published[str(seed)][part]]
        assert [row.place for _, _, row in found] == wanted


@needs_data
@pytest.mark.parametrize(
    ("name", "counts", "also_trained"),
    [
        ("fpb", (1630, 181, 453), 4),
        ("fomc", (1788, 196, 496), 16),
        ("numclaim", (358, 40, 100), 0),
    ],
)
def test_the_real_files_are_read_whole(
    name: str, counts: tuple[int, ...], also_trained: int
) -> None:
    task = make_task(name, {"folder": str(DATA / name)})
    assert isinstance(task, LabelledSentences)
    assert tuple(len(task.load(split)) for split in SPLITS) == counts
    assert task.facts("report")["also_trained"] == also_trained
    for split in SPLITS:
        scores = [task.score(each, task.target(each)) for each in task.load(split)]
        found = task.aggregate(scores)
        assert found["accuracy"] == found["macro_f1"] == found["mcc"] == 1.0


@needs_data
@pytest.mark.parametrize("target", ["answer", "labels"])
def test_the_real_token_files_are_read_whole(target: str) -> None:
    task = make_task("finer", {"folder": str(DATA / "finer"), "target": target})
    assert [len(task.load(split)) for split in SPLITS] == [3262, 402, 1075]
    for split in SPLITS:
        found = task.aggregate([task.score(each, task.target(each)) for each in task.load(split)])
        assert found["entity_f1"] == found["all_entities"] == 1.0


@needs_data
@pytest.mark.parametrize("name", ["fpb", "finer"])
def test_what_is_downloaded_is_what_is_published(name: str) -> None:
    source = find_task(name).source
    assert source is not None
    for file, blob in source.blobs.items():
        copy = DATA / name / f"{Path(file).name}.gz"
        assert blob_id(gzip.decompress(copy.read_bytes())) == blob
