"""Flips: results that differ in quantization only are paired, and their differences counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.flips import Pair, pairs, quantization_knobs
from orchestrator.reporting.builder import build_report, write_report
from orchestrator.reporting.sections.flips import COLUMNS
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.results import read_trials
from tests.orchestrator.reporting.test_builder import section
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.exact_match import EM_ACC

HEADING = "What quantization changed"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "quickstart")


def found(run: RunFolder) -> list[Pair]:
    return pairs(read_trials(run), PredictionReader(), metric=EM_ACC)


def shown(run: RunFolder) -> str:
    return section(build_report(run, {}).markdown(), HEADING)


def answered(folder: TrialFolder, right: Sequence[int], **more: Any) -> TrialFolder:
    """The trial's predictions with kinds and texts: even questions are sums, odd ones ratios."""
    rows = [
        {"id": f"q{n}", "kind": ("sum", "ratio")[n % 2], "question": f"what is | number {n}?",
         "prediction": f"{more.get('says', 'x')}{n}", "gold": float(n), "em_acc": bool(score)}
        for n, score in enumerate(right)
    ]  # fmt: skip
    folder.write_predictions(rows)
    folder.write_summary(folder.summary() or {})
    return folder


def test_knobs_that_only_a_quantization_reads_do_not_part_a_pair(run: RunFolder) -> None:
    assert quantization_knobs() == {"quantization", "double_quantization"}
    add_trial(run, right=[1, 1, 0, 0])
    for knobs in ({"quantization": "nf4"}, {"quantization": "nf4", "double_quantization": True}):
        add_trial(run, right=[1, 0, 1, 0], **knobs)
    assert sorted(pair.level for pair in found(run)) == ["nf4", "nf4+dq"]


@pytest.mark.parametrize(
    "other",
    [{"rank": 4}, {"learning_rate": 1e-3}, {"model": "another"}, {"state": "stopped"}, {"seed": 7}],
)
def test_whatever_else_differs_parts_them(run: RunFolder, other: dict[str, Any]) -> None:
    add_trial(run, right=[1, 0])
    add_trial(run, right=[0, 1], quantization="nf4", **other)
    assert found(run) == []


def test_two_quantized_ones_are_no_pair(run: RunFolder) -> None:
    for quantization in ("int8", "nf4", "fp4"):
        add_trial(run, right=[1, 0], quantization=quantization)
    assert found(run) == []


def test_each_direction_is_counted_tested_and_listed(run: RunFolder) -> None:
    answered(add_trial(run, right=outcomes(8, 10)), [1] * 8 + [0] * 2, says="plain ")
    answered(add_trial(run, right=outcomes(1, 10), quantization="fp4"), [0] * 8 + [1, 0])
    (pair,) = found(run)
    assert [flip.id for flip in pair.of("lost")] == [f"q{n}" for n in range(8)]
    assert [flip.id for flip in pair.of("gained")] == ["q8"]
    first = pair.of("lost")[0]
    assert (first.question, first.gold) == ("what is | number 0?", "0.0")
    assert (first.reference_answer, first.answer) == ("plain 0", "x0")
    assert pair.comparison.p_value == pytest.approx(2 * (1 + 9) / 2**9)  # 1 of 9 by binomial
    assert (pair.comparison.only_a, pair.comparison.only_b, pair.comparison.count) == (1, 8, 10)
    kinds = {kind.kind: (kind.questions, kind.both, kind.lost, kind.gained, kind.neither)
             for kind in pair.kinds}  # fmt: skip
    assert kinds == {"ratio": (5, 0, 4, 0, 1), "sum": (5, 0, 4, 1, 0)}
    text = shown(run)
    assert "| 10 | 80.0% | 10.0% | 8 | 1 | -70.0 | " in text and "| 0.039 | worse |" in text
    assert "| fp4 | ratio | 5 | 0 | 4 | 0 | 1 |" in text
    assert "right without quantization, wrong with it:" in text
    assert "| sum | what is \\| number 0? | 0.0 | plain 0 | x0 |" in text


def test_only_questions_that_both_answered_count(run: RunFolder) -> None:
    answered(add_trial(run, right=[1, 1, 1]), [1, 1, 1])
    answered(add_trial(run, right=[0, 0], quantization="nf4"), [0, 0])
    assert [pair.comparison.count for pair in found(run)] == [2]


def test_without_trained_pairs_the_bases_are_shown_and_how_to_get_them(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60), rank=4)
    add_baseline(run, outcomes(50))
    add_baseline(run, outcomes(40), quantization="int8")
    (pair,) = found(run)
    assert pair.is_baseline
    text = shown(run)
    assert "No two trained configurations differ in their quantization only" in text
    assert "one_factor" in text and "start_with" in text and "small none untrained" in text


def test_without_any_pair_one_sentence_says_how_to_get_one(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60))
    text = shown(run)
    assert "nothing can be said question by question" in text and "one_factor" in text
    write_report(run)
    assert run.flips_file.read_text() == ",".join(COLUMNS) + "\n"


def test_trained_pairs_come_first_and_quantizations_in_their_order(run: RunFolder) -> None:
    for add in (add_baseline, lambda run, right, **knobs: add_trial(run, right=right, **knobs)):
        for quantization in ("fp4", "int8", "none", "nf4"):
            add(run, [1, 0], quantization=quantization)
    order = [(pair.is_baseline, pair.level) for pair in found(run)]
    assert order == [(base, name) for base in (False, True) for name in ("int8", "nf4", "fp4")]


def test_the_report_shows_some_and_the_file_all(run: RunFolder) -> None:
    answered(add_trial(run, right=outcomes(30, 40)), [1] * 30 + [0] * 10)
    answered(add_trial(run, right=outcomes(10, 40), quantization="nf4"), [0] * 30 + [1] * 10)
    report = write_report(run)
    text = section(report.markdown(), HEADING)
    assert "wrong with it, 10 of 30:" in text and text.count("what is") == 20
    assert "All 40 flips: `flips.csv`." in text
    with run.flips_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and [row["direction"] for row in rows].count("lost") == 30
    assert rows[0]["question"] == "what is | number 0?" and rows[0]["kind"] == "sum"
    screen = io.StringIO()
    report.print(screen, width=100)
    assert screen.getvalue().count("what is") == 6 and "7 more in report.md" in screen.getvalue()


def test_damaged_predictions_make_no_pair(run: RunFolder) -> None:
    add_trial(run, right=[1, 1, 0, 0])
    other = add_trial(run, right=[1, 0, 1, 0], quantization="nf4")
    other.predictions_file().write_text(other.predictions_file().read_text().replace("1.0", "2.0"))
    assert found(run) == []
