"""The exported study that optuna-dashboard reads from a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.execution.driver import Driver
from orchestrator.execution.sweep_setup import SweepSetup
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.search.searcher import Search
from orchestrator.search.trial_queue import TrialQueue
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import finish, rung
from trainables.storage.run_folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def next_trial(trial_queue: TrialQueue) -> TrialRecord:
    record = trial_queue.next()
    assert record is not None
    return record if record.is_trial else next_trial(trial_queue)


def loaded(run: RunFolder, search: Search) -> Any:
    run.write_bytes(run.study_file, search.database("tiny"))
    return optuna.load_study(study_name=None, storage=f"sqlite:///{run.study_file}")


def start(run: RunFolder, **sections: Any) -> tuple[TrialQueue, Ledger, Search]:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, tiny_sweep.config(**sections))
    return trial_queue, ledger, trial_queue._search


def test_each_trial_is_there_with_all_that_is_known_of_it(run: RunFolder) -> None:
    trial_queue, ledger, search = start(run, search={"algorithm": "tpe", "trials": 4})
    finished, stopped, refused, running = (next_trial(trial_queue) for _ in range(4))
    finish(trial_queue, ledger, finished, value=0.5)
    event = rung(0.25, units=8, fraction=0.25)
    stopped.history.append(event)
    trial_queue.rung(stopped, event)
    ledger.stopped(stopped)
    trial_queue.ended(stopped)
    ledger.infeasible(refused, "OutOfMemoryError")
    trial_queue.ended(refused)
    study = loaded(run, search)
    assert study.study_name == "tiny"
    found = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    assert {trial_id: trial.state.name for trial_id, trial in found.items()} == {
        finished.trial_id: "COMPLETE",
        stopped.trial_id: "PRUNED",
        refused.trial_id: "PRUNED",
        running.trial_id: "WAITING",  # whoever reads the file will not see it run
    }
    assert found[finished.trial_id].value == pytest.approx(0.5, abs=0.1)
    assert list(found[stopped.trial_id].intermediate_values) == [8]
    assert found[refused.trial_id].intermediate_values == {}
    for record in (finished, stopped, refused, running):
        assert found[record.trial_id].params == record.suggestion


def test_it_is_whole_after_a_resume_and_takes_the_place_of_the_old_one(run: RunFolder) -> None:
    trial_queue, ledger, search = start(run)
    finish(trial_queue, ledger, next_trial(trial_queue))
    loaded(run, search)
    trial_queue, ledger, search = start(run)
    finish(trial_queue, ledger, next_trial(trial_queue))
    assert [trial.state.name for trial in loaded(run, search).trials] == ["COMPLETE"] * 2


def test_what_was_no_trial_of_the_sweep_is_not_there(run: RunFolder) -> None:
    """Draws that were not taken, and configurations asked for again."""
    trial_queue, ledger, search = start(run, search={"algorithm": "random", "trials": 40})
    while (record := trial_queue.next()) is not None:
        finish(trial_queue, ledger, record)
    assert len(search.study.trials) > 4
    assert len(loaded(run, search).trials) == 4


def test_several_objectives_keep_their_directions(run: RunFolder) -> None:
    names = ["em_acc", "train_peak_memory_bytes"]
    trial_queue, ledger, search = start(run, objective=names, scheduler="none")
    finish(trial_queue, ledger, next_trial(trial_queue))
    study = loaded(run, search)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.trials[0].values == [pytest.approx(0.5, abs=0.1), float("inf")]


def test_a_driver_writes_it_at_its_end_if_it_has_come_to_search(run: RunFolder) -> None:
    settings = tiny_sweep.config()
    driver = Driver(run, settings, tiny_sweep.planner(settings), None, None, "again")
    driver._export_study()
    assert not run.study_file.exists()
    driver._setup = SweepSetup(run, driver.planner, (), print, search=Search(settings))
    driver._export_study()
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{run.study_file}")
    assert study.trials == []
