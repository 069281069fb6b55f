"""What did not finish is grouped by what went wrong."""

from __future__ import annotations

from pathlib import Path

from orchestrator.runs.progress import unfinished
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import add_trial, new_run, new_spec


def test_a_fault_that_names_each_trial_is_told_once(tmp_path: Path) -> None:
    run = new_run(tmp_path / "quickstart")
    for rank in (1, 2, 4):
        name = new_spec(rank=rank).trial_id
        fault = f"Trial {name[:6]} failed at step {rank}: loss is nan (see {name} at 0x{rank}f)"
        add_trial(run, state="failed", reason=fault, rank=rank)
    assert [group.count for group in unfinished(read_trials(run))] == [3]
