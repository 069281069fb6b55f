"""Small folders in the form in which the financial data sets are published."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.trainables.tasks.own_data.own_file import sentences
from trainables.tasks.financial.fpb import FILES
from trainables.tasks.financial.labelled import SPLIT_SEEDS

LEVELS = {"50": 60, "66": 50, "75": 40, "all": 30}  # the first so many sentences


def fpb(folder: Path) -> dict[str, Any]:
    """The options of the task `fpb`; the file of full agreement is gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    for level, count in LEVELS.items():
        lines = [f"{text} Umsätze @ home@{label}\r\n" for text, label in sentences(count)]
        content = "".join(lines).encode("latin-1")
        file = folder / (FILES[level] + (".gz" if level == "all" else ""))
        file.write_bytes(gzip.compress(content) if level == "all" else content)
    return {"folder": str(folder)}


def fomc(folder: Path) -> dict[str, Any]:
    """The options of the task `fomc`; the files are JSON lines."""
    return _numbered(folder, "sentence", labels=3)


def numclaim(folder: Path) -> dict[str, Any]:
    """The options of the task `numclaim`; the files are JSON lines."""
    return _numbered(folder, "text", labels=2)


def finer(folder: Path) -> dict[str, Any]:
    """The options of the task `finer`; its folders are as published, the test file gzipped."""
    people = ("Ada Ey", "None", "Bo")
    rows = [
        [(name, "PER"), ("left", ""), (f"Umsatz {at} AG", "ORG"), ("in", ""), ("Bonn", "LOC")]
        if at % 4
        else [("Nothing", ""), ("rose", ""), (str(at), "")]
        for at, name in enumerate(people * 8)
    ]
    parts = {"train/train.csv": rows[:12], "train/val.csv": rows[12:18], "test/test.csv": rows[18:]}
    for name, tagged in parts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(_token_lines(tagged)), encoding="utf-8")
    test = folder / "test" / "test.csv"
    test.with_suffix(".csv.gz").write_bytes(gzip.compress(test.read_bytes()))
    test.unlink()
    return {"folder": str(folder)}


def _token_lines(rows: Sequence[Sequence[tuple[str, str]]]) -> Iterator[str]:
    tags = ("PER_B", "PER_I", "LOC_B", "LOC_I", "ORG_B", "ORG_I")
    yield "gold_label,gold_token,doc_idx,sent_idx\n"
    for at, spans in enumerate(rows):
        for text, label in spans:
            for place, token in enumerate(text.split()):
                tag = tags.index(f"{label}_{'I' if place else 'B'}") + 1 if label else 0
                yield f"{tag},{token},{at // 3},{at % 3}\n"


def _numbered(folder: Path, column: str, *, labels: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{column: text, "label": at % labels} for at, (text, _) in enumerate(sentences(48))]
    for seed in SPLIT_SEEDS:
        for part, found in (("train", rows[:36]), ("test", rows[36:])):
            text = "".join(json.dumps(row) + "\n" for row in found)
            (folder / f"data-{part}-{seed}.jsonl").write_text(text)
    return {"folder": str(folder)}
