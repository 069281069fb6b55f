"""Tagging: the forms of files, tags as entities, labels, and entity F1."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.tasks.own_data import own_file
from tests.trainables.tasks.own_data.own_file import write_csv
from trainables.errors import InputError
from trainables.metrics.of_entities import entities_of, listed, written
from trainables.metrics.registry import values
from trainables.tasks.own_data.tagged_rows import entities
from trainables.tasks.registry import make_task
from trainables.tasks.task import SPLITS

SPLIT = {"selection": 0.2, "report": 0.2}


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-A I-A O B-A", [("a b", "A"), ("d", "A")]),
        ("A_B A_I A_B O", [("a b", "A"), ("c", "A")]),
        ("A A B O", [("a b", "A"), ("c", "B")]),
        ("O I-A O I-B", [("b", "A"), ("d", "B")]),  # an entity may begin with I
        ("S-A S-A B-A E-A", [("a", "A"), ("b", "A"), ("c d", "A")]),
        ("O O O O", []),
    ],
)
def test_tags_of_every_usual_form_are_read(tags: str, found: list[tuple[str, str]]) -> None:
    assert entities(["a", "b", "c", "d"], tags.split()) == found


def _jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_lists_and_tokens_a_line_are_sentences(tmp_path: Path) -> None:
    by_line = make_task("tagging", own_file.tagging(tmp_path))
    examples = [each for split in SPLITS for each in by_line.load(split)]
    golds = {str(each.record["question"]): by_line.gold(each) for each in examples}
    assert (
        len(golds) == 40 and golds["Acme Corp sold 0 units Paris ."] == "Acme Corp: ORG; Paris: LOC"
    )
    assert golds["Bolt sold 7 units ."] == "Bolt: ORG"
    rows = [
        {"tokens": ["In", "New", "York", str(at)], "tags": ["O", "B-LOC", "I-LOC", "O"]}
        for at in range(20)
    ]
    by_list = make_task("tagging", {"file": _jsonl(tmp_path, rows), "split": SPLIT})
    example = by_list.load("train")[0]
    assert by_list.target(example) == "New York: LOC"
    assert by_list.prompt(example).text.startswith("In New York ")
    assert "Labels: LOC." in by_list.prompt(example).text


def test_numbers_as_tags_need_their_meanings(tmp_path: Path) -> None:
    rows = [(str(at), word, tag) for at in range(20) for word, tag in ((f"A{at}", "1"), ("b", "0"))]
    file = write_csv(tmp_path / "n.csv", rows, columns=("sentence", "gold_token", "gold_label"))
    options = {
        "file": str(file),
        "split": SPLIT,
        "sentence": ["sentence"],
        "columns": {"input": "gold_token", "target": "gold_label"},
        "tags": {0: "O", 1: "PER_B"},
        "labels": {"PER": ["person"]},
    }
    with pytest.raises(InputError, match="needs two labels"):
        make_task("tagging", options)
    options["labels"] = {"PER": ["person"], "ORG": ["firm"]}
    task = make_task("tagging", options)
    example = task.load("train")[0]
    name = str(example.record["question"]).split()[0]
    assert task.gold(example) == f"{name}: PER" and task.target(example) == f"{name}: person"
    assert task.score(example, f"{name}: Person")["all_entities"]
    assert not task.score(example, f"{name}: firm")["all_entities"]
    assert task.score(example, "I do not know")["not_followed"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"tokens": ["a", "b"], "tags": ["O"]}], r"a\.jsonl:1: 2 tokens and 1 tags"),
        ([{"tokens": ["a", "b"], "tags": ["O", ""]}], r"a\.jsonl:1: a tag of 'tags' is empty"),
        ([{"tokens": ["a"], "tags": [float("nan")]}], r"a\.jsonl:1: a tag of 'tags' is empty"),
        ([{"tokens": ["a"], "label": ["O"]}], r"data\.columns\.input and data\.columns\.target"),
    ],
)
def test_malformed_rows_are_refused(rows: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        make_task("tagging", {"file": _jsonl(tmp_path, rows), "split": SPLIT}).load("train")


def test_a_label_that_train_has_not_is_refused_with_its_line(tmp_path: Path) -> None:
    def file(name: str, tag: str) -> str:
        rows = [(f"{name} b{at}", f"O {tag}") for at in range(4)]
        return str(write_csv(tmp_path / f"{name}.csv", rows, columns=("tokens", "tags")))

    options = {"train": file("t", "B-A"), "selection": file("s", "B-X"), "report": file("r", "B-A")}
    with pytest.raises(InputError, match=r"s\.csv:2: the label 'X' is none of A, the labels of"):
        make_task("tagging", options).load("selection")


def test_entity_f1_is_that_of_its_definition() -> None:
    """2 * right / (answered + gold) over all entities, of 200 random cases."""
    draw = random.Random(3)
    for _ in range(200):
        pairs = [
            [
                [
                    (draw.choice("abc"), draw.choice(("PER", "ORG")))
                    for _ in range(draw.randrange(4))
                ]
                for _ in range(2)
            ]
            for _ in range(draw.randrange(1, 9))
        ]
        measured = values("entities", [entities_of(*map(written, pair)) for pair in pairs])
        right = 0
        for gold, answer in pairs:
            left = list(gold)
            for each in answer:
                if each in left:
                    left.remove(each)
                    right += 1
        counts = [sum(len(pair[side]) for pair in pairs) for side in (0, 1)]
        if sum(counts):
            assert measured["entity_f1"] == pytest.approx(2 * right / sum(counts))
        same = [sorted(gold) == sorted(answer) for gold, answer in pairs]
        assert measured["all_entities"] == pytest.approx(sum(same) / len(same))


def test_an_answer_of_nothing_but_outside_has_no_f1() -> None:
    rows = [entities_of("Acme: ORG", "none"), entities_of("none", "none")]
    measured = values("entities", rows)
    assert measured["entity_f1"] == 0 and measured["all_entities"] == 0.5
    assert listed("Acme: ORG; and then; : LOC") == [("Acme", "ORG")]
