"""Data sets of the hub as options of `data`: which splits are read, and what a row is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from tests.hub_server import COMMIT
from tests.trainables.tasks.own_data.own_file import sentences
from trainables.errors import InputError
from trainables.hub_data import HubData
from trainables.tasks.own_data import table
from trainables.tasks.registry import find_task, make_task
from trainables.tasks.task import SPLITS

HUB = {"hub": "owner/rows", "revision": COMMIT}
SPLIT = {"selection": 0.2, "report": 0.2}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[HubData, str]]:
    """A data set that is on this node; the splits that are read."""
    file, asked = tmp_path / "x.parquet", list[tuple[HubData, str]]()
    rows = [{"sentence": text, "label": label} for text, label in sentences()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), file)

    def fetched(data: HubData, split: str) -> Path:
        asked.append((data, split))
        return file

    monkeypatch.setattr(table, "fetched_split", fetched)
    return asked


def test_one_split_of_the_hub_is_shared_out(asked: list[tuple[HubData, str]]) -> None:
    options = {**HUB, "subset": "all", "file": "train", "split": SPLIT}
    task = make_task("classification", options)
    assert task.hub_data == HubData("owner/rows", COMMIT, ("train",), "all")
    [example, *_] = task.load("train")
    assert example.record["place"].startswith("owner/rows train:row ")
    assert example.id.startswith("train:row")
    assert set(asked) == {(task.hub_data, "train")}
    digests = [task.data_digest(split) for split in SPLITS]
    assert digests == [make_task("classification", options).data_digest(each) for each in SPLITS]


def test_each_split_is_one_of_the_hub(asked: list[tuple[HubData, str]]) -> None:
    files = {"train": "train", "selection": "validation", "allow_duplicates": True}
    task = make_task("classification", {**HUB, **files})
    assert task.load("train")
    assert [split for _, split in asked] == ["train", "validation"]
    assert task.hub_data and task.hub_data.splits == ("train", "validation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": "a.csv", "split": SPLIT, "revision": "main"}, r"data\.revision: is of a data se"),
        ({"file": "a.csv", "split": SPLIT, "subset": "x"}, r"data\.subset: is of a data set of th"),
        ({"hub": "owner/rows"}, r"data\.train and data\.selection: missing"),
        ({"hub": 3, "file": "train", "split": SPLIT}, r"data\.hub: got 3; needs a text"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_task("chat", options)


def test_published_data_sets_have_no_option_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.hub: unknown option"):
        make_task("fomc", {"folder": str(tmp_path), "hub": "owner/rows"})


def test_options_are_pinned_to_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"hub": "owner/rows", "file": "train", "split": SPLIT}
    asked: list[tuple[str, str]] = []

    def commit(name: str, revision: str = "main") -> str:
        asked.append((name, revision))
        return COMMIT

    monkeypatch.setattr("trainables.tasks.own_data.own_task.resolved_commit", commit)
    kind = find_task("chat")
    assert kind.pinned(given) == {**given, "revision": COMMIT}
    assert kind.pinned({**given, "revision": "v1"})["revision"] == COMMIT
    assert asked == [("owner/rows", "main"), ("owner/rows", "v1")]
    files = {"file": "a.csv", "split": SPLIT}
    assert kind.pinned(files) == files and json.dumps(files)
