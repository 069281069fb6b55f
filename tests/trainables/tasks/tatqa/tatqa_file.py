"""A small file in TAT-QA's official form, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def question(uid: str, answer: Any, *, answer_type: str, scale: str = "", **more: Any) -> Any:
    return {
        "uid": uid,
        "order": 1,
        "question": f"What is {uid}?",
        "answer": answer,
        "derivation": "",
        "answer_type": answer_type,
        "answer_from": "table-text",
        "rel_paragraphs": ["2"],
        "req_comparison": False,
        "scale": scale,
        **more,
    }


def context(name: str, *questions: Any) -> dict[str, Any]:
    texts = ("Sales fell.", "Amounts are in millions.")
    return {
        "table": {"uid": f"table-{name}", "table": [["", "2019"], ["Revenue", f"$ 1,{name}0.5"]]},
        "paragraphs": [
            {"uid": f"{name}-{order}", "order": order, "text": text}
            for order, text in enumerate(texts, start=1)
        ],
        "questions": list(questions),
    }


def contexts(prefix: str, count: int = 2) -> list[dict[str, Any]]:
    """`count` contexts with one question of each kind."""
    return [
        context(
            f"{prefix}{number}",
            question(f"{prefix}{number}-a", ["$1,496.5"], answer_type="span", scale="million"),
            question(f"{prefix}{number}-b", ["2019", "2018"], answer_type="multi-span"),
            question(f"{prefix}{number}-c", -22.22, answer_type="arithmetic", scale="percent"),
            question(f"{prefix}{number}-d", "0", answer_type="count"),
        )
        for number in range(count)
    ]


def write(file: Path, value: Any) -> Path:
    file.write_text(json.dumps(value, indent=1))
    return file


def options(folder: Path, **more: Any) -> dict[str, Any]:
    """The task's options with three files without common contexts or questions."""
    files = {
        split: str(write(folder / f"{split}.json", contexts(split)))
        for split in ("train", "selection", "report")
    }
    return {**files, **more}
