"""The ledger: a trial's state survives its driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.runs.ledger import RUNNING, Ledger
from tests.orchestrator.run_builder import add_trial, new_spec
from tests.orchestrator.tiny_sweep import rung
from trainables.errors import InputError
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STATES, STOPPED
from trainables.storage.run_folder import RunFolder


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


@pytest.mark.parametrize("name", ["summary.json", "predictions.jsonl"])
def test_a_finished_trial_with_a_damaged_result_runs_again_and_that_is_said(
    run: RunFolder, name: str
) -> None:
    folder = add_trial(run, right=[1, 0], report_right=[1, 0])
    file = folder.path / name
    file.write_text(file.read_text().replace("1", "2", 1))
    ledger = Ledger(run)
    (record,) = ledger
    assert (record.state, record.history, folder.done) == (INTERRUPTED, [], False)
    assert len(ledger.warnings) == 1 and str(file) in ledger.warnings[0]
    assert "runs again" in ledger.warnings[0]
    assert Ledger(run).warnings == []


@pytest.mark.parametrize("name", ["report.json", "report_predictions.jsonl"])
def test_a_damaged_report_score_is_forgotten_and_the_trial_stays(run: RunFolder, name: str) -> None:
    folder = add_trial(run, right=[1, 0], report_right=[1, 0])
    file = folder.path / name
    file.write_text(file.read_text().replace("1", "2", 1))
    ledger = Ledger(run)
    assert [record.state for record in ledger] == [FINISHED]
    assert folder.report_score() is None and "scored again" in ledger.warnings[0]


def test_a_trial_without_a_sound_spec_is_none_and_kept_for_a_look(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.spec_file.write_text(folder.spec_file.read_text().replace('"rank": 8', '"rank": 9'))
    ledger = Ledger(run)
    assert [*ledger] == [] and "set aside as spec.json.damaged" in ledger.warnings[0]
    (folder.path / "spec.json.damaged").unlink()
    assert "its spec is gone" in Ledger(run).warnings[0]


def test_the_result_of_another_trial_is_none(run: RunFolder) -> None:
    good, other = add_trial(run, right=[1, 1]), add_trial(run, right=[0, 0], rank=2)
    other.summary_file.write_bytes(good.summary_file.read_bytes())
    other.predictions_file().write_bytes(good.predictions_file().read_bytes())
    states = {record.trial_id: record.state for record in Ledger(run)}
    assert states == {good.trial_id: FINISHED, other.trial_id: INTERRUPTED}


def test_what_cannot_be_read_stops_the_start_and_is_not_taken_for_damaged(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    content = folder.summary_file.read_bytes()
    folder.summary_file.unlink()
    folder.summary_file.mkdir()  # as a folder it can't be read by root either
    with pytest.raises(InputError, match="can't be read"):
        Ledger(run)
    folder.summary_file.rmdir()
    folder.summary_file.write_bytes(content)
    assert [record.state for record in Ledger(run)] == [FINISHED]
