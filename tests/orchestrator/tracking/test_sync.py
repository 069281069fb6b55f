"""Names of the runs in a tracker: as in the report, whenever they are mirrored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.results import read_trials
from orchestrator.tracking.sync import mirror
from orchestrator.tracking.tracker import RunEnd, RunStart
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial, new_run, outcomes


class Told:
    """A tracker that keeps the names of the runs."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def start(self, start: RunStart) -> None:
        self.names.append(start.name)

    def finish(self, end: RunEnd) -> None:
        self.names.append(end.start.name)


@pytest.mark.parametrize("is_driven", [True, False])
def test_runs_have_the_labels_of_the_report(tmp_path: Path, is_driven: bool) -> None:
    space = {"model": ["exp1/final", "exp2/final"], "schedule": ["linear", "cosine"]}
    run = new_run(tmp_path / "sweep", {**CONFIG, "space": space})
    for model in space["model"]:
        add_baseline(run, outcomes(5), model=model)
        for schedule in space["schedule"]:
            add_trial(run, right=outcomes(50), model=model, schedule=schedule)
    told: Any = Told()
    mirror(run, told, is_driven=is_driven)
    results = read_trials(run)
    assert told.names == [f"{item.label} · {item.trial_id[:6]}" for item in results]
    assert told.names[1].startswith("exp1/final none r8 a16 lr2.0e-04 b8x1 linear · ")
    assert len({name.partition(" · ")[0] for name in told.names}) == 6
