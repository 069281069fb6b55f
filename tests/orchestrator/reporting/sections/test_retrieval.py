"""The report's section on retrieval: recall with its interval, and the best trial of each way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.formatting import MISSING
from orchestrator.reporting.builder import build_report
from orchestrator.reporting.sections.retrieval import HEADING
from tests.orchestrator.run_builder import add_trial, new_run, outcomes, question_rows
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep")


def add(
    run: RunFolder, right: int, context: str, recalls: list[float], **knobs: Any
) -> TrialFolder:
    """A trial of 100 questions, of which the first ones have gold evidence."""
    complete = [float(share == 1) for share in recalls]
    measured = {
        "evidence_recall": sum(recalls) / max(1, len(recalls)),
        "evidence_complete": sum(complete) / max(1, len(recalls)),
        "evidence_questions": float(len(recalls)),
    }
    folder = add_trial(
        run,
        right=outcomes(right),
        metrics=measured if recalls else {},
        context=context,
        **knobs,
    )
    rows = question_rows(outcomes(right))
    for row, share, whole in zip(rows, recalls, complete, strict=False):
        row |= {"evidence_recall": share, "evidence_complete": bool(whole)}
    folder.write_predictions(rows)
    facts = {"selection": {"context": context, "evidence": "none"}}
    folder.write_summary({**(folder.summary() or {}), "facts": facts})
    return folder


def test_each_way_has_its_recall_and_its_best_trial(run: RunFolder) -> None:
    add(run, 30, "full", [])
    add(run, 40, "retrieved", [1.0] * 60 + [0.5] * 20, k=3)
    best = add(run, 55, "retrieved", [1.0] * 70 + [0.5] * 10, k=10, rank=4)
    add(run, 50, "retrieved", [1.0] * 70 + [0.5] * 10, k=10, rank=8)
    text = build_report(run).markdown().split(f"## {HEADING}\n")[1].split("\n## ", maxsplit=1)[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if " | " in line]
    assert [row[:4] for row in rows[2:]] == [
        ["full", MISSING, MISSING, MISSING],
        ["retrieved", "bm25", "page", "3"],
        ["retrieved", "bm25", "page", "10"],
    ]
    assert rows[2][4:6] == [MISSING, MISSING]
    assert rows[3][4].startswith("87.5% (82.") and rows[3][5].startswith("75.0% (64.")
    assert rows[4][4].startswith("93.8%") and "r4" in rows[4][6] and "55.0%" in rows[4][7]
    assert best.trial_id and "before prompts were cut" in text


def test_without_retrieval_there_is_no_section(run: RunFolder) -> None:
    add(run, 30, "full", [])
    add(run, 40, "evidence", [])
    assert f"## {HEADING}" not in build_report(run).markdown()
