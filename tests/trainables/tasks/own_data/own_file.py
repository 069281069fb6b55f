"""Small files of a user's own data."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WORDS = {"positive": "rose", "negative": "fell", "neutral": "stayed"}


def sentences(count: int = 40) -> list[tuple[str, str]]:
    """Pairs of a sentence and its label, of three labels in turn."""
    labels = list(WORDS)
    return [
        (
            f"Profit of unit {at} {WORDS[labels[at % 3]]} to {at * 7} million, it said.",
            labels[at % 3],
        )
        for at in range(count)
    ]


def write_csv(
    file: Path, rows: Sequence[Sequence[str]], *, columns: Sequence[str] = ("sentence", "label")
) -> Path:
    with file.open("w", newline="", encoding="utf-8") as text:
        csv.writer(text).writerows([columns, *rows])
    return file


def classification(folder: Path) -> dict[str, Any]:
    """The options of the task `classification`."""
    file = write_csv(folder / "sentences.csv", sentences())
    return {"file": str(file), "split": {"selection": 0.2, "report": 0.2, "seed": 7}}


def completion(folder: Path) -> dict[str, Any]:
    """The options of the task `completion`."""
    rows = [
        (f"Question {at}:", f" it was {at}, {text}") for at, (text, _) in enumerate(sentences())
    ]
    file = write_csv(folder / "answers.csv", rows, columns=("prompt", "completion"))
    return {"file": str(file), "split": {"selection": 0.2, "report": 0.2, "seed": 7}}


def chats(count: int = 40) -> list[list[dict[str, str]]]:
    """Conversations of one to three questions, every other one with a system message."""
    found = []
    for at, (text, label) in enumerate(sentences(count)):
        system = [{"role": "system", "content": "Answer in one word."}] if at % 2 else []
        turns = [
            {"role": role, "content": content}
            for turn in range(at % 3)
            for role, content in (
                ("user", f"Is {at} more than {turn}?"),
                ("assistant", "yes" if at > turn else "no"),
            )
        ]
        last = [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
        found.append([*system, *turns, *last])
    return found


def write_jsonl(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return file


def chat(folder: Path) -> dict[str, Any]:
    """The options of the task `chat`."""
    file = write_jsonl(folder / "chats.jsonl", [{"messages": each} for each in chats()])
    return {"file": str(file), "split": {"selection": 0.2, "report": 0.2, "seed": 7}}


def tagging(folder: Path) -> dict[str, Any]:
    """The options of the task `tagging`, of a file with a row for each token."""
    firms, places = ["Acme Corp", "Bolt", "Zed & Co"], ["Paris", "New York", ""]
    rows: list[tuple[str, str, str]] = []
    for at in range(40):
        words = [(word, "ORG") for word in firms[at % 3].split()]
        words += [("sold", "O"), (str(at), "O"), ("units", "O")]
        words += [(word, "LOC") for word in places[at // 3 % 3].split()] + [(".", "O")]
        before = "O"
        for word, label in words:
            tag = label if label == "O" else f"{label}_{'I' if label == before else 'B'}"
            rows.append((str(at), word, tag))
            before = label
    file = write_csv(folder / "tokens.csv", rows, columns=("sentence_id", "tokens", "tags"))
    split = {"selection": 0.2, "report": 0.2, "seed": 7}
    return {"file": str(file), "split": split, "sentence": "sentence_id"}
