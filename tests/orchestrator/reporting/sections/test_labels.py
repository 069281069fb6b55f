"""The report of a task of labels has answers beside gold, F1 by label and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.labels import label_counts
from orchestrator.reporting.builder import build_report
from orchestrator.reporting.sections.labels import HEADING, NONE
from orchestrator.runs.predictions import Predictions
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial, new_run, outcomes
from trainables.metrics.of_labels import labels_of
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

GOLD = ["down"] * 10 + ["flat"] * 70 + ["up"] * 20
LABELLED = {**CONFIG, "task": "classification", "objective": "accuracy", "data": {"file": "a.csv"}}


def rows(answers: Sequence[str], gold: Sequence[str] = GOLD) -> list[dict[str, Any]]:
    return [
        {"id": f"q{at}", "prediction": answer, **labels_of(wanted, answer)}
        for at, (wanted, answer) in enumerate(zip(gold, answers, strict=True))
    ]


def judged(folder: TrialFolder, answers: Sequence[str]) -> TrialFolder:
    """The trial with these answers to GOLD."""
    found = rows(answers)
    accuracy = sum(row["accuracy"] for row in found) / len(found)
    summary = folder.summary() or {}
    folder.write_predictions(found)
    folder.write_summary({**summary, "metrics": {**summary["metrics"], "accuracy": accuracy}})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep", LABELLED)


def section(run: RunFolder) -> str:
    return build_report(run).markdown().split(f"## {HEADING}\n")[1].split("\n## ", maxsplit=1)[0]


def test_answers_stand_beside_gold_with_the_f1_of_each_label(run: RunFolder) -> None:
    judged(add_trial(run, right=outcomes(1)), ["flat"] * 20 + ["flat"] * 60 + ["up"] * 20)
    judged(add_baseline(run, outcomes(0)), ["up"] * 60 + [""] * 40)
    text = section(run)
    assert (
        "| label | gold | answers, best | answers, untrained | F1, best | F1, untrained |" in text
    )
    assert "| flat | 70 (70.0%) ███████ | 80 (80.0%) ████████ | 0 (0.0%) | 93.3% | 0.0% |" in text
    assert "| up | 20 (20.0%) ██ | 20 (20.0%) ██ | 60 (60.0%) ██████ | 100.0% | 0.0% |" in text
    assert f"| {NONE} | 0 (0.0%) | 0 (0.0%) | 40 (40.0%) ████ | – | – |" in text
    assert (
        "| gold | down | flat | up |\n| --- | ---: | ---: | ---: |\n| down | 0 | 10 | 0 |" in text
    )
    assert f"| gold | down | flat | up | {NONE} |" in text
    assert "always one answer" not in text


def test_a_model_that_answers_one_label_always_is_told(run: RunFolder) -> None:
    same = judged(add_trial(run, right=outcomes(1), rank=4), ["flat"] * 98 + ["up"] * 2)
    judged(add_trial(run, right=outcomes(1), rank=8), GOLD)
    judged(add_baseline(run, outcomes(0)), [""] * 100)
    text = section(run)
    assert "1 of 2 finished trials gave (nearly) always one answer on the selection split" in text
    assert f"flat, though the gold has others: `{same.trial_id}`" in text
    assert "1 of 1 finished untrained base gave (nearly) always one answer" in text


def test_one_label_is_no_fault_where_the_gold_has_it_too() -> None:
    counts = label_counts(Predictions.of_rows(rows(["flat"] * 20, ["flat"] * 19 + ["up"])))
    assert counts is not None and counts.one_label is None
    assert label_counts(Predictions.of_rows([{"id": "q", "prediction": "x"}])) is None


def test_of_many_labels_the_commonest_confusions_are_shown(run: RunFolder) -> None:
    folder = add_trial(run, right=outcomes(1))
    judged(folder, [f"l{at % 20:02}" if at < 99 else GOLD[at] for at in range(100)])
    text = section(run)
    assert "The commonest confusions, best, of 23 labels:" in text
    assert "| gold | answer | questions |" in text and "| flat | l10 | 4 |" in text


def test_a_task_without_labels_has_no_such_section(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep")
    add_trial(run, right=outcomes(60))
    assert f"## {HEADING}" not in build_report(run).markdown()
