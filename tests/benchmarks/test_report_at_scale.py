"""The benchmark of the report runs, and measures a report that compares trials."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report_at_scale import measured, table
from benchmarks.synthetic_run import Scale, make_run
from benchmarks.workload import REPOSITORY
from orchestrator.runs.results import read_trials


def test_a_report_of_synthetic_trials_is_measured_by_part(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", Scale(trials=8, questions=30, is_grid=True, seed=1))
    results = read_trials(run)
    assert sum(item.is_trial and item.finished for item in results) == 8
    assert not [warning for item in results for warning in item.warnings]
    parts = measured(REPOSITORY, run)
    assert {"imports", "plot", "print"} <= parts.keys()
    assert len(run.flips_file.read_text().splitlines()) > 1
    assert f"| all | {sum(parts.values()):.2f} s |" in table({"this checkout": parts})
