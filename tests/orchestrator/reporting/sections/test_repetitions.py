"""The report tells each configuration's mean and spread over its seeds."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from orchestrator.reporting.builder import build_report
from orchestrator.reporting.sections.repetitions import HEADING, HOW, OTHER_QUESTIONS
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder

SEEDS = (5768, 78516, 944601)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    space = {**CONFIG["space"], "split_seed": list(SEEDS), "seed": [0, 1, 2]}
    return new_run(tmp_path / "sweep", {**CONFIG, "space": space})


def rows(run: RunFolder) -> list[list[str]]:
    """The cells of the section's table."""
    lines = section(run).splitlines()
    table = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in table[2:]]


def section(run: RunFolder) -> str:
    text = build_report(run).markdown()
    if f"## {HEADING}\n" not in text:
        return ""
    return text.split(f"## {HEADING}\n")[1].split("\n## ", maxsplit=1)[0]


def test_a_configuration_has_its_mean_deviation_and_each_value(run: RunFolder) -> None:
    right = (70, 55, 64)
    for seed, count in zip(SEEDS[::-1], right[::-1], strict=True):
        add_trial(run, right=outcomes(count), quantization="nf4", split_seed=seed)
        add_trial(run, right=outcomes(count + 2), split_seed=seed)
    deviation = f"{statistics.stdev(right):.1f}"
    each = ["70.0 (5768), 55.0 (78516), 64.0 (944601)", "72.0 (5768), 57.0 (78516), 66.0 (944601)"]
    best, other = rows(run)
    assert best[0].startswith("small none r8") and "split" not in best[0]
    assert best[1:] == ["selection", "3", "65.0%", deviation, each[1]]
    assert other[0].startswith("small nf4 r8")
    assert other[1:] == ["selection", "3", "63.0%", deviation, each[0]]
    assert HOW.format(knobs="split_seed") in section(run) and OTHER_QUESTIONS in section(run)


def test_several_repeated_knobs_are_told_together_in_the_order_of_numbers(run: RunFolder) -> None:
    for seed, split, count in ((2, 78516, 40), (10, 5768, 60), (2, 5768, 50)):
        add_trial(run, right=outcomes(count), split_seed=split, seed=seed)
    assert rows(run)[0][2:] == [
        "3",
        "50.0%",
        "10.0",
        "50.0 (5768, 2), 60.0 (5768, 10), 40.0 (78516, 2)",
    ]
    assert HOW.format(knobs="split_seed and seed") in section(run)


def test_baselines_have_a_row_and_the_report_split_one_if_two_were_judged_on_it(
    run: RunFolder,
) -> None:
    for seed in SEEDS:
        add_baseline(run, outcomes(20), split_seed=seed)
        judged = outcomes(30) if seed != SEEDS[0] else None
        add_trial(run, right=outcomes(50), report_right=judged, split_seed=seed)
    found = [(row[0].split(" r8")[0], *row[1:4]) for row in rows(run)]
    assert found == [
        ("small none", "selection", "3", "50.0%"),
        ("small none", "report", "2", "30.0%"),
        ("small none untrained", "selection", "3", "20.0%"),
    ]


def test_what_is_no_repetition_or_has_not_finished_is_not_told(run: RunFolder) -> None:
    add_trial(run, right=outcomes(50), split_seed=5768)
    add_trial(run, right=outcomes(60), split_seed=78516, rank=4)
    add_trial(run, right=outcomes(60), split_seed=78516, state="stopped")
    add_trial(run, right=outcomes(60), split_seed=5768, model="other")
    assert section(run) == ""
    add_trial(run, right=outcomes(52), seed=1)
    assert [row[2] for row in rows(run)] == ["2"]
    assert OTHER_QUESTIONS not in section(run)
