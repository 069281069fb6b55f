"""The report shows the best trial of each method and compares methods in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.reporting.builder import build_report
from orchestrator.reporting.sections.methods import CHOSEN, HEADING, SHARED
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

FULL: dict[str, Any] = {"method": "full", "zero_stage": 3, "workers": 4}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep")


def add(
    run: RunFolder,
    right: int,
    *,
    shared: float = 0.0,
    report_right: list[int] | None = None,
    **knobs: Any,
) -> TrialFolder:
    folder = add_trial(
        run,
        right=outcomes(right),
        report_right=report_right,
        metrics={"device_seconds": 44.0, "device_shared": shared},
        **knobs,
    )
    facts = {"trainable_parameters": 221_504, "checkpoint_bytes": 3 * 2**20}
    folder.write_summary({**(folder.summary() or {}), "facts": facts})
    return folder


def section(run: RunFolder) -> str:
    return build_report(run).markdown().split(f"## {HEADING}\n")[1].split("\n## ", maxsplit=1)[0]


def test_the_best_of_each_method_stands_with_its_costs(run: RunFolder) -> None:
    add(run, 30, rank=4)
    lora = add(run, 60, rank=8)
    full = add(run, 50, **FULL)
    add_trial(run, state="failed", reason="loss is nan", method="full")
    text = section(run)
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| small")}
    assert list(rows) == ["full", "full z3 w4", "lora"]
    assert f"| 1 of 1 | {full.trial_id} | none full z3 w4" in rows["full z3 w4"]
    assert "| 11 s | 44 s | 64.0 MiB | 221,504 | 3.0 MiB |" in rows["full z3 w4"]
    assert f"| 2 of 2 | {lora.trial_id} | none r8" in rows["lora"]
    assert "60.0% (50.2–69.1)" in rows["lora"]
    assert "| 0 of 1 | none has finished |" in rows["full"]


def test_they_are_compared_on_the_same_questions(run: RunFolder) -> None:
    add(run, 60)
    add(run, 20, **FULL)
    add(run, 59, model="large")
    add(run, 60, model="large", **FULL)
    text = section(run)
    assert "small, lora against full z3 w4 on the selection split: +40.0 points" in text
    assert "exact McNemar p < 0.0001, 100 questions): better." in text
    assert "large, full z3 w4 against lora on the selection split: +1.0 points" in text
    assert "questions): tie." in text and CHOSEN.format("EmAcc") in text


def test_the_report_split_compares_those_that_it_has_scored(run: RunFolder) -> None:
    add(run, 60, report_right=outcomes(40))
    add(run, 20, report_right=outcomes(45), **FULL)
    text = section(run)
    assert "lora against full z3 w4 on the report split: -5.0 points" in text


def test_times_of_a_shared_device_are_not_left_to_be_compared(run: RunFolder) -> None:
    add(run, 60)
    assert HEADING not in build_report(run).markdown().split("\n## ")  # one method only
    add(run, 20, **FULL)
    assert SHARED not in section(run)
    add(run, 90, shared=1.0, rank=64)
    assert SHARED in section(run)


def test_a_sweep_of_one_method_has_no_such_table(run: RunFolder) -> None:
    add(run, 60, rank=4)
    add(run, 20, rank=8)
    assert f"## {HEADING}" not in build_report(run).markdown()
