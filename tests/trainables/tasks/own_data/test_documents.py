"""Documents of a user's own: of a column or a file, retrieved into prompts, with their recall."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from trainables.errors import InputError
from trainables.tasks.identity import task_identity
from trainables.tasks.registry import make_task
from trainables.tasks.task import Example, Task

PROMPT = "{retrieved}\nQuestion: {question}\nAnswer:"
BM25: dict[str, Any] = {"context": "retrieved", "retriever": "bm25", "k": 1, "scope": "page"}
HOURS = "The shop opens at nine."
PLACE = "The shop is in Bergen."
DOCUMENTS = [HOURS, PLACE, "Nothing else is known."]
ROWS = [
    {"question": "When does the shop open?", "answer": "nine", "gold": "hours"},
    {"question": "In which town is it?", "answer": "Bergen", "gold": "place"},
]


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def of_file(folder: Path, *, evidence: bool = True, **options: Any) -> Task:
    """Documents of a file, which the evidence names by id."""
    ids = ["hours", "place", "other"]
    documents = [{"id": i, "text": text} for i, text in zip(ids, DOCUMENTS, strict=True)]
    section = {"from": write_lines(folder / "documents.jsonl", documents)}
    return task_of(folder, ROWS, section | ({"evidence": "gold"} if evidence else {}), options)


def of_column(folder: Path, *, rows: Sequence[Mapping[str, Any]] = (), **options: Any) -> Task:
    """Documents of the rows themselves; the evidence is written out."""
    texts = {"hours": HOURS, "place": [PLACE]}
    made = [{**row, "documents": DOCUMENTS, "gold": texts[str(row["gold"])]} for row in ROWS]
    section = {"from": "documents", "evidence": "gold"}
    return task_of(folder, rows or made, section, options)


def task_of(
    folder: Path, rows: Sequence[Mapping[str, Any]], section: object, options: Mapping[str, Any]
) -> Task:
    other = [{**row, "question": f"{row['question']} Say it."} for row in rows]
    files = {
        "train": write_lines(folder / "train.jsonl", rows),
        "selection": write_lines(folder / "selection.jsonl", other),
        "report": write_lines(
            folder / "report.jsonl",
            [{**row, "question": f"Please: {row['question']}"} for row in rows],
        ),
    }
    return make_task("completion", {**files, "retrieve": section, "prompt": PROMPT, **options})


def prompts(task: Task) -> list[str]:
    return [task.prompt(example).text for example in task.load("train")]


@pytest.mark.parametrize("made", [of_file, of_column])
def test_a_prompt_shows_the_best_documents_and_the_recall_is_measured(
    tmp_path: Path, made: Any
) -> None:
    task = made(tmp_path, **BM25)
    first, second = task.load("train")
    assert task.prompt(first).text == f"{HOURS}\nQuestion: {first.record['question']}\nAnswer:"
    assert task.prompt(second).text.startswith(PLACE)
    measured = task.aggregate([task.score(each, task.target(each)) for each in (first, second)])
    assert measured["evidence_recall"] == measured["evidence_complete"] == 1.0
    assert measured["evidence_questions"] == 2 and measured["exact_match"] == 1.0
    everything = made(tmp_path, **{**BM25, "k": 10})
    assert prompts(everything)[0].startswith("\n".join(DOCUMENTS))


def test_what_other_contexts_show(tmp_path: Path) -> None:
    assert prompts(of_column(tmp_path))[0].startswith("\n".join(DOCUMENTS) + "\nQuestion")
    assert prompts(of_column(tmp_path, context="evidence"))[1].startswith(f"{PLACE}\nQuestion")
    assert prompts(of_file(tmp_path, context="evidence"))[1].startswith(f"{PLACE}\nQuestion")
    assert prompts(of_file(tmp_path))[0].startswith("\nQuestion")


def test_a_text_is_split_into_sentences(tmp_path: Path) -> None:
    text = " ".join(DOCUMENTS)
    rows = [{**ROWS[0], "documents": text, "gold": HOURS}]
    task = of_column(tmp_path, rows=rows, **BM25)
    assert prompts(task)[0].startswith(f"{HOURS}\nQuestion")


def test_without_evidence_no_recall_is_measured(tmp_path: Path) -> None:
    task = of_file(tmp_path, evidence=False, **BM25)
    scores = [task.score(example, "") for example in task.load("train")]
    assert "evidence_recall" not in task.aggregate(scores)
    one = of_column(tmp_path, rows=[{**ROWS[0], "documents": DOCUMENTS, "gold": []}], **BM25)
    [example] = one.load("train")
    assert "evidence_recall" not in one.score(example, "")


def test_the_identity_depends_on_the_documents(tmp_path: Path) -> None:
    task = of_file(tmp_path, **BM25)
    before = task_identity(task)
    assert (before["context"], before["evidence"]) == ("retrieved", "retrieved")
    assert before["version"].endswith("/retrieved-1")
    (tmp_path / "more").mkdir()
    file = tmp_path / "documents.jsonl"
    write_lines(file, [{"id": i, "text": f"{i}."} for i in ("hours", "place")])
    section = {"from": str(file), "evidence": "gold"}
    after = task_identity(task_of(tmp_path, ROWS, section, BM25))
    assert after["data"] != before["data"] and after["version"] == before["version"]
    assert task_identity(of_column(tmp_path))["version"].endswith("/full")


def test_a_task_without_documents_is_what_it_was(tmp_path: Path) -> None:
    task = task_of(tmp_path, ROWS, None, {"prompt": "{question}"})
    assert task.version == "completion-1/'\\n'/exact_match,token_f1"
    assert "context" not in task.facts("train")
    own = [{**row, "retrieved": "mine"} for row in ROWS]
    assert prompts(task_of(tmp_path, own, None, {}))[0].startswith("mine\nQuestion")


SECTION = {"from": "documents", "evidence": "gold"}


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("x", {}, r"data.retrieve: got 'x'; needs a mapping of from, evidence, encoder"),
        ({"form": "documents"}, {}, r"data.retrieve.form: unknown option.*'from'"),
        ({"from": 3}, {}, r"data.retrieve.from: got 3; needs a text"),
        ({}, {}, r"data.retrieve.from: missing; name a column, or a file with a column 'text'"),
        (None, BM25, r"data.retrieve.from: missing"),
        ({"from": "documents"}, {"context": "evidence"}, r"data.retrieve.evidence: missing"),
        (SECTION, {**BM25, "k": 0}, r"space.k: got 0"),
        (SECTION, {**BM25, "retriever": "embedding"}, r"data.retrieve.encoder: missing"),
        (SECTION, {"prompt": "{question}"}, r"space.prompt: shows no \{retrieved\}"),
        ({"from": "documnts"}, {}, r"train.jsonl:1: no column 'documnts', which data.retrieve"),
        (None, {}, r"space.prompt: no column 'retrieved'"),
        ({**SECTION, "evidence": "answer"}, {}, r"train.jsonl:1: the evidence 'nine' is no docu"),
        ({"from": "none.jsonl"}, BM25, r"none.jsonl"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, section: object, options: dict[str, Any], message: str
) -> None:
    rows = [{**row, "documents": DOCUMENTS, "gold": HOURS} for row in ROWS]
    with pytest.raises(InputError, match=message):
        task_of(tmp_path, rows, section, options).load("train")


def test_a_file_with_an_id_twice_or_an_empty_document_is_refused(tmp_path: Path) -> None:
    documents = [{"id": "a", "text": HOURS}, {"id": "a", "text": PLACE}, {"id": "b", "text": " "}]
    section = {"from": write_lines(tmp_path / "DOCUMENTS.JSONL", documents)}
    with pytest.raises(InputError) as caught:
        task_of(tmp_path, ROWS, section, BM25).load("train")
    told = "\n".join(caught.value.messages)
    assert "JSONL:2: the id 'a' stands in an earlier row too" in told
    assert "JSONL:3: an empty text" in told


def test_a_large_file_is_searched_in_the_time_of_its_questions(tmp_path: Path) -> None:
    """2,000 documents and 200 questions: no step compares all documents for each question."""
    documents = [{"text": f"Item {at} costs {at} euros."} for at in range(2000)]
    rows = [
        {"question": f"What does item {at} cost?", "answer": f"{at}", "gold": f"Item {at} costs"}
        for at in range(1, 200)
    ]
    rows = [{**row, "gold": documents[at + 1]["text"]} for at, row in enumerate(rows)]
    section = {
        "from": write_lines(tmp_path / "documents.jsonl", documents),
        "evidence": "gold",
    }
    task = task_of(tmp_path, rows, section, BM25)
    examples: Sequence[Example] = task.load("train")
    measured = task.aggregate([task.score(example, "") for example in examples])
    assert measured["evidence_recall"] == 1.0
