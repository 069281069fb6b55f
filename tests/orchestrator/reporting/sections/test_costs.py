"""The costs in a report equal those in the trial folders and are readable."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reporting.builder import build_report, write_report
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder

PREDICTION: dict[str, Any] = {
    "train_memory_bytes": 60 * 2**20,
    "eval_memory_bytes": 33 * 2**20,
    "train_flops": 2.2e12,
    "eval_flops": 1.0e12,
}


def costs(train_flops: float, *, shared: float = 0.0, speed: float = 40.0) -> dict[str, float]:
    return {
        "train_flops": train_flops,
        "eval_flops": 1e12,
        "device_seconds": 90.0,
        "device_shared": shared,
        "examples_per_second": speed,
    }


def section(run: RunFolder, heading: str) -> str:
    text = build_report(run).markdown()
    return text.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two finished trials that counted their FLOPs, one of them on a shared device."""
    run = new_run(tmp_path / "sweep")
    rungs = {0.0625: 0.1, 0.25: 0.3, 1.0: 0.6}
    add_trial(run, right=outcomes(60), rungs=rungs, metrics=costs(2e12), prediction=PREDICTION)
    add_trial(run, right=outcomes(50), rungs={0.25: 0.35, 1.0: 0.5}, prediction=PREDICTION, rank=4,
              metrics=costs(1e12, shared=1.0, speed=90.0))  # fmt: skip
    return run


def test_the_front_against_flops_has_its_table_and_its_picture(run: RunFolder) -> None:
    write_report(run)
    text = section(run, "Pareto front: EmAcc against train FLOPs")
    assert text.index("1 TFLOP") < text.index("2 TFLOP") and "60.0% (50.2–69.1)" in text
    assert "(flops.png)" in text and run.flops_file.exists()


def test_flops_to_reach_a_level_are_told_with_the_rung_that_was_there(run: RunFolder) -> None:
    text = section(run, "Train FLOPs to reach an EmAcc")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "FLOP |" in line}
    assert list(rows)[:6] == ["10%", "20%", "30%", "40%", "50%", "60%"]
    assert "r8" in rows["10%"] and "125 GFLOP" in rows["10%"] and "6.25%" in rows["10%"]
    assert "r4" in rows["20%"] and "250 GFLOP" in rows["20%"] and "35.0%" in rows["20%"]
    assert "r4" in rows["50%"] and "r8" in rows["60%"] and "2 TFLOP" in rows["60%"]


def test_speed_is_told_only_of_trials_alone_on_their_device(run: RunFolder) -> None:
    text = section(run, "What the best trials cost")
    alone = next(line for line in text.splitlines() if "r8" in line)
    shared = next(line for line in text.splitlines() if "r4" in line)
    assert "40 (#1)" in alone and "1 min 30 s" in alone and "1.6 MiB·h" in alone
    assert "| shared |" in shared and "90" not in shared.split("1 min 30 s")[1]
    assert "only among trials that are known to have had the device alone" in text


def test_the_error_of_predictions_is_told_by_kind(run: RunFolder) -> None:
    text = section(run, "How well it was predicted")
    assert "| lora | none | 2 | 6.25% | 6.25% | -6.25% | 3.12% | 3.12% | none |" in text
    assert "train FLOPs by 114%" in text and "evaluation FLOPs by 0.00%" in text


def test_a_sweep_without_predictions_says_so_and_has_no_picture_of_flops(tmp_path: Path) -> None:
    run = new_run(tmp_path / "sweep")
    add_trial(run, right=outcomes(60))
    write_report(run)
    assert "they are counted from its prediction" in section(
        run, "Pareto front: EmAcc against train FLOPs"
    )
    assert "No finished trial had a prediction" in section(run, "How well it was predicted")
    assert not run.flops_file.exists() and "(flops.png)" not in run.report_file.read_text()


def test_at_100_columns_no_number_of_the_costs_is_broken(run: RunFolder) -> None:
    screen = io.StringIO()
    build_report(run).print(screen, width=100)
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= 100 for line in lines if "/" not in line)
    for number in ("1 min 30 s", "1.6 MiB·h", "40 (#1)", "2 TFLOP", "-6.25%", "(50.2–69.1)"):
        assert any(number in line for line in lines), number
