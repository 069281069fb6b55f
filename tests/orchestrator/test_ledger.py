"""Specification of the ledger: a trial's state outlives the driver that knew it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger import RUNNING, Ledger
from tests.orchestrator.run_builder import new_spec
from tests.orchestrator.tiny_sweep import rung
from trainables.run_folder import RunFolder
from trainables.spec import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STATES, STOPPED


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def test_a_new_trial_is_interrupted_until_it_has_ended(run: RunFolder) -> None:
    record = Ledger(run).add(new_spec(rank=4), {"rank": 4})
    record.state = RUNNING
    read = Ledger(run).get(record.trial_id)
    assert read is not None
    assert read.state == INTERRUPTED
    assert read.spec == record.spec
    assert read.suggestion == {"rank": 4}


def test_an_empty_folder_has_no_trials(run: RunFolder) -> None:
    assert [*Ledger(run)] == []
    (run.path / "trials" / "half-made").mkdir(parents=True)
    assert [*Ledger(run)] == []


@pytest.mark.parametrize("state", [STOPPED, FAILED, INFEASIBLE])
def test_how_a_trial_ended_is_read_back(run: RunFolder, state: str) -> None:
    ledger = Ledger(run)
    record = ledger.add(new_spec(rank=4), {"rank": 4})
    record.history = [rung(0.25, units=8, fraction=0.25)]
    if state == STOPPED:
        ledger.stopped(record)
    else:
        {FAILED: ledger.failed, INFEASIBLE: ledger.infeasible}[state](record, "its reason")
    read = Ledger(run).records[record.trial_id]
    assert (read.state, read.reason) == (record.state, record.reason) == (state, record.reason)
    assert read.history == record.history
    assert read.metrics == record.metrics
    assert state in STATES


def test_a_summary_of_the_worker_makes_a_trial_finished(run: RunFolder) -> None:
    record = Ledger(run).add(new_spec(rank=4), {})
    event = rung(0.75)
    record.folder.write_summary({"state": FINISHED, "history": [event.to_json()]})
    read = Ledger(run).records[record.trial_id]
    assert read.state == FINISHED
    assert read.rungs == [event]


def test_a_stopped_trial_says_where_and_keeps_no_checkpoint(run: RunFolder) -> None:
    ledger = Ledger(run)
    record = ledger.add(new_spec(rank=4), {})
    record.history = [rung(0.25, units=8, fraction=0.25)]
    (record.folder.checkpoints_folder / "step-1").mkdir(parents=True)
    ledger.stopped(record)
    assert record.reason == "stopped early at 25% of its budget"
    assert not record.folder.checkpoints_folder.exists()


def test_a_trial_that_runs_again_keeps_its_checkpoint_and_forgets_its_end(run: RunFolder) -> None:
    ledger = Ledger(run)
    record = ledger.add(new_spec(rank=4), {})
    (record.folder.checkpoints_folder / "step-1").mkdir(parents=True)
    ledger.failed(record, "its host died")
    ledger.run_again(record)
    assert (record.state, record.reason) == (INTERRUPTED, "")
    assert Ledger(run).records[record.trial_id].state == INTERRUPTED
    assert record.folder.checkpoints_folder.exists()


def test_counts_are_of_trials_unless_baselines_are_asked_for(run: RunFolder) -> None:
    ledger = Ledger(run)
    ledger.finished(ledger.add(new_spec(rank=4), {}))
    ledger.finished(ledger.add(new_spec(role="baseline", method="untrained"), {}))
    assert ledger.count(FINISHED) == 1
    assert ledger.count(FINISHED, role="baseline") == 1
    assert len(ledger.with_state(FINISHED)) == 2


def test_trials_keep_the_order_of_their_suggestion(run: RunFolder) -> None:
    ledger = Ledger(run)
    added = [ledger.add(new_spec(rank=rank), {}).trial_id for rank in (8, 2, 16, 4)]
    assert [record.trial_id for record in Ledger(run)] == added
