"""A run folder is read also with damaged files, and results.csv has one row per trial."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from orchestrator.reporting.results_csv import write_results
from orchestrator.runs.lease import Lease
from orchestrator.runs.results import damage, open_run, read_config, read_trials
from orchestrator.runs.trial_result import TrialResult, ranked
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, outcomes
from trainables.errors import InputError
from trainables.spec.metric import EVAL_LOSS
from trainables.storage.run_folder import RunFolder
from trainables.tasks.exact_match import EM_ACC


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep")


def by_id(run: RunFolder) -> dict[str, TrialResult]:
    return {item.trial_id: item for item in read_trials(run)}


def test_a_finished_trial_is_read_whole(run: RunFolder) -> None:
    folder = add_trial(run, right=outcomes(60), rungs={0.25: 0.3, 1.0: 0.6}, rank=4,
                       report_right=outcomes(30, 50))  # fmt: skip
    (trial,) = read_trials(run)
    assert trial.trial_id == folder.trial_id
    assert trial.finished and trial.is_trial
    assert trial.metrics["em_acc"] == 0.6 and trial.count() == 100
    assert trial.report_metrics["em_acc"] == 0.6 and trial.count("report") == 50
    assert [event.fraction for event in trial.history] == [0.25, 1.0]
    assert trial.knobs["rank"] == 4 and trial.label == "small none r4 a16 lr2.0e-04 b8x1"
    assert trial.warnings == ()


def test_without_a_summary_a_trial_runs_while_a_driver_holds_the_run(run: RunFolder) -> None:
    long_ago = time.time() - 3600
    folder = run.trial(new_spec(rank=2).trial_id)
    folder.write_spec(new_spec(rank=2), {})
    folder.write_progress({"kind": "progress", "step": 7, "units": 56, "state": "running",
                           "metrics": {"train_loss": 2.0}, "updated": long_ago})  # fmt: skip
    silent = run.trial(new_spec(rank=8).trial_id)  # it loads its base
    silent.write_spec(new_spec(rank=8), {})
    add_trial(run, state="stopped", rank=16)
    with Lease(run):
        held = {item.knobs["rank"]: item for item in read_trials(run)}
    assert {rank: item.state for rank, item in held.items()} == {
        2: "running",
        8: "running",
        16: "stopped",
    }
    assert held[2].metrics == {"train_loss": 2.0}
    states = {item.knobs["rank"]: item.state for item in read_trials(run)}
    assert states == {2: "interrupted", 8: "interrupted", 16: "stopped"}


@pytest.mark.parametrize("torn", ["", "{", "[1, 2]", '{"metrics": 3, "history": [{"x": 1}, 4]}'])
def test_torn_files_give_warnings_and_no_crash(run: RunFolder, torn: str) -> None:
    folder = add_trial(run, right=outcomes(60))
    for name in ("spec.json", "summary.json", "report.json", "predictions.jsonl"):
        (folder.path / name).write_text(torn)
    (trial,) = read_trials(run)
    assert trial.metrics == {} and trial.warnings
    write_results(run)


def test_an_adapter_that_is_not_the_one_that_was_scored_is_warned_of(run: RunFolder) -> None:
    folder = add_trial(run, right=[1, 0])
    folder.adapter_folder.mkdir()
    weights = folder.adapter_folder / "adapter_model.safetensors"
    weights.write_text("weights")
    folder.write_summary(folder.summary() or {})
    assert damage(run) == []
    weights.write_text("other weights")
    (warning,) = damage(run)
    assert str(weights) in warning and "not the adapter that was scored" in warning
    weights.unlink()
    assert len(damage(run)) == 1


def test_the_table_has_every_trial_knob_and_metric_and_exact_floats(run: RunFolder) -> None:
    rate = 0.1 + 0.2  # needs 17 digits
    trial = add_trial(run, right=outcomes(1, 3), learning_rate=rate, report_right=outcomes(1, 3))
    base = add_baseline(run, outcomes(5))
    failed = add_trial(run, state="failed", reason="loss is nan,\nat step 4", rank=64)
    write_results(run)
    with run.results_file.open(newline="") as file:
        rows = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert set(rows) == {trial.trial_id, base.trial_id, failed.trial_id}
    row = rows[trial.trial_id]
    assert float(row["learning_rate"]) == rate and float(row["em_acc"]) == 1 / 3
    assert row["quantization"] == "none" and row["rank"] == "8" and row["role"] == "trial"
    assert row["report_em_acc"] == repr(1 / 3) and row["seconds_total"] == "11.0"
    assert rows[base.trial_id]["role"] == "baseline" and rows[base.trial_id]["rank"] == ""
    asked = [(row["context"], row["evidence"]) for row in rows.values()]
    assert asked == [("evidence", "gold")] * 3
    assert rows[failed.trial_id]["reason"] == "loss is nan,\nat step 4"


def test_the_columns_do_not_depend_on_what_has_been_measured(tmp_path: Path) -> None:
    empty, full = new_run(tmp_path / "a"), new_run(tmp_path / "b")
    add_trial(full, right=outcomes(3), metrics={"zzz": 1.0})
    headers = [write_results(run).read_text().splitlines()[0] for run in (empty, full)]
    assert [name for name in headers[1].split(",") if name != "zzz"] == headers[0].split(",")


def test_the_best_comes_first_and_ties_go_to_the_lower_loss(run: RunFolder) -> None:
    tied = {"em_acc": 0.5}
    a = add_trial(run, right=outcomes(50), metrics={**tied, "eval_loss": 1.2}, rank=1)
    b = add_trial(run, right=outcomes(50), metrics={**tied, "eval_loss": 1.1}, rank=2)
    add_trial(run, right=outcomes(90), state="stopped", rank=4)
    add_baseline(run, outcomes(99))
    order = [item.trial_id for item in ranked(read_trials(run), EM_ACC)]
    assert order == [b.trial_id, a.trial_id]
    assert ranked(read_trials(run), EVAL_LOSS)[0].trial_id == b.trial_id


def test_a_folder_that_is_no_run_is_refused_with_what_is_near(tmp_path: Path) -> None:
    new_run(tmp_path / "quickstart")
    with pytest.raises(InputError, match="Did you mean 'quickstart'"):
        open_run(tmp_path / "quikstart")
    with pytest.raises(InputError, match="but it holds some"):
        open_run(tmp_path)
    assert open_run(tmp_path / "quickstart").path == tmp_path / "quickstart"


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_a_configuration_that_cannot_be_read_is_a_warning(run: RunFolder, text: str) -> None:
    run.sweep_file.write_text(text)
    config, warnings = read_config(run)
    assert config == {} and len(warnings) == 1
