"""Specification of the agenda: N distinct feasible trials, baselines, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import SweepConfig, from_mapping
from orchestrator.ledger import Ledger
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import finish, run_out, rung
from trainables.run_folder import RunFolder
from trainables.spec import BASELINE, FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED

BASELINES = 2  # none and nf4


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def config(*, trials: int = 4, algorithm: str = "random", **space: Any) -> SweepConfig:
    value = tiny_sweep.mapping(search={"algorithm": algorithm, "trials": trials})
    value["space"] |= space
    return from_mapping(value)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_n_distinct_configurations_and_one_baseline_per_base(
    run: RunFolder, algorithm: str
) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=3, algorithm=algorithm))
    given = run_out(agenda, ledger)
    assert agenda.over and not agenda.exhausted
    trials = [record.trial_id for record in given if record.is_trial]
    assert len(trials) == len(set(trials)) == 3
    assert sum(not record.is_trial for record in given) == BASELINES


def test_every_base_gets_its_baseline_even_if_no_trial_of_it_was_suggested(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=1))
    given = run_out(agenda, ledger)
    baselines = [record for record in given if record.spec.role == BASELINE]
    assert {record.spec.knobs["quantization"] for record in baselines} == {"none", "nf4"}


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_a_space_that_has_no_more_is_exhausted(run: RunFolder, algorithm: str) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=40, algorithm=algorithm))
    given = run_out(agenda, ledger)
    assert agenda.over and agenda.exhausted
    assert sum(record.is_trial for record in given) == 4


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_a_space_of_one_configuration(run: RunFolder, algorithm: str) -> None:
    settings = config(trials=3, algorithm=algorithm, quantization="none", rank=2)
    agenda, ledger, _ = tiny_sweep.agenda(run, settings)
    assert len(run_out(agenda, ledger)) == 2
    assert agenda.exhausted
    resumed, ledger, _ = tiny_sweep.agenda(run, settings)
    assert run_out(resumed, ledger) == []
    assert resumed.exhausted


def test_configurations_that_train_the_same_are_one_trial(run: RunFolder) -> None:
    """`double_quantization` is not read without quantization."""
    settings = config(trials=9, quantization="none", double_quantization=[True, False], rank=2)
    agenda, ledger, _ = tiny_sweep.agenda(run, settings)
    assert sum(record.is_trial for record in run_out(agenda, ledger)) == 1


def test_an_excluded_configuration_is_never_given(run: RunFolder) -> None:
    rule = {"quantization": "nf4", "rank": 4}
    value = tiny_sweep.mapping(exclude=[rule], search={"algorithm": "tpe", "trials": 9})
    agenda, ledger, _ = tiny_sweep.agenda(run, from_mapping(value))
    knobs = [record.spec.knobs for record in run_out(agenda, ledger) if record.is_trial]
    assert len(knobs) == 3
    assert not [each for each in knobs if each["quantization"] == "nf4" and each["rank"] == 4]


def test_nothing_is_given_while_enough_trials_run(run: RunFolder) -> None:
    agenda, _, _ = tiny_sweep.agenda(run, config(trials=1))
    given = []
    while (record := agenda.next()) is not None:
        given.append(record)
    assert sum(record.is_trial for record in given) == 1
    assert not agenda.over


def test_what_can_not_run_is_listed_and_does_not_count(run: RunFolder) -> None:
    settings = config(trials=2, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    agenda, ledger, rejected = tiny_sweep.agenda(run, settings)
    trials = [record for record in run_out(agenda, ledger) if record.is_trial]
    assert [record.spec.knobs["optimizer"] for record in trials] == ["adamw", "adamw"]
    for record in rejected:
        assert record.state == INFEASIBLE
        assert "Use adamw" in record.reason
        summary = record.folder.summary()
        assert summary is not None and summary["state"] == INFEASIBLE


def test_what_could_not_run_is_judged_anew_and_still_never_launched(run: RunFolder) -> None:
    settings = config(trials=4, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    agenda, ledger, rejected = tiny_sweep.agenda(run, settings)
    run_out(agenda, ledger)
    assert len(rejected) == 2
    for record in ledger.with_state(INFEASIBLE):  # as a driver does at its start
        ledger.run_again(record)
    resumed, ledger, rejected = tiny_sweep.agenda(run, settings)
    assert run_out(resumed, ledger) == []
    assert len(rejected) == 2
    assert len(Ledger(run).with_state(INFEASIBLE)) == 2


def test_what_could_not_run_runs_on_a_device_where_it_can(run: RunFolder) -> None:
    settings = config(trials=4, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    agenda, ledger, _ = tiny_sweep.agenda(run, settings)
    run_out(agenda, ledger)
    for record in ledger.with_state(INFEASIBLE):
        ledger.run_again(record)
    gpu = tiny_sweep.planner(settings, device_type="cuda")
    resumed, ledger, rejected = tiny_sweep.agenda(run, settings, plan=gpu)
    given = run_out(resumed, ledger)
    assert [record.spec.knobs["optimizer"] for record in given] == ["paged_adamw_8bit"] * 2
    assert rejected == []


def test_unfinished_trials_come_first_in_the_order_of_their_suggestion(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config())
    given = [record for _ in range(3) if (record := agenda.next()) is not None]
    finish(agenda, ledger, given[1])
    resumed, _, _ = tiny_sweep.agenda(run, config())
    again = [record for _ in range(2) if (record := resumed.next()) is not None]
    assert [record.trial_id for record in again] == [given[0].trial_id, given[2].trial_id]


def test_a_resumed_sweep_ends_with_all_its_trials_and_runs_none_twice(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=4, algorithm="tpe"))
    first = []
    for _ in range(3):
        record = agenda.next()
        assert record is not None
        first.append(record.trial_id)
        finish(agenda, ledger, record)
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=4, algorithm="tpe"))
    second = [record.trial_id for record in run_out(resumed, ledger)]
    assert not set(first) & set(second)
    assert ledger.count(FINISHED) == 4
    assert ledger.count(FINISHED, role=BASELINE) == BASELINES


def test_a_finished_sweep_gives_nothing(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    run_out(agenda, ledger)
    resumed, _, _ = tiny_sweep.agenda(run, config(trials=2))
    assert resumed.over
    assert resumed.next() is None


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_more_trials_may_be_asked_for(run: RunFolder, algorithm: str) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=2, algorithm=algorithm))
    before = {record.trial_id for record in run_out(agenda, ledger)}
    grown, ledger, _ = tiny_sweep.agenda(run, config(trials=4, algorithm=algorithm))
    after = {record.trial_id for record in run_out(grown, ledger)}
    assert len(after) == 2
    assert not after & before
    assert ledger.count(FINISHED) == 4


def test_failed_trials_count_as_done_and_are_left(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    record = agenda.next()
    assert record is not None and record.is_trial
    ledger.failed(record, "RuntimeError: out of luck")
    agenda.ended(record)
    run_out(agenda, ledger)
    assert ledger.count(FINISHED) == 1
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    assert resumed.over
    assert [each.reason for each in ledger.with_state(FAILED)] == ["RuntimeError: out of luck"]


def test_failed_trials_run_again_when_asked_to(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    record = agenda.next()
    assert record is not None
    ledger.failed(record, "RuntimeError: out of luck")
    agenda.ended(record)
    run_out(agenda, ledger)
    ledger.run_again(record)
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    assert [each.trial_id for each in run_out(resumed, ledger)] == [record.trial_id]
    assert ledger.count(FINISHED) == 2


def test_a_stopped_trial_is_done(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=1))
    record = agenda.next()
    assert record is not None
    event = rung(0.1, units=8, fraction=0.25)
    record.history.append(event)
    agenda.rung(record, event)
    ledger.stopped(record)
    agenda.ended(record)
    run_out(agenda, ledger)
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=1))
    assert resumed.over
    assert ledger.count(STOPPED) == 1


def test_a_loss_that_was_not_finite_does_not_keep_a_sweep_from_resuming(run: RunFolder) -> None:
    agenda, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    record = agenda.next()
    assert record is not None
    event = rung(0.0, loss=float("nan"))
    record.history.append(event)
    agenda.rung(record, event)
    ledger.stopped(record)
    agenda.ended(record)
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=2))
    run_out(resumed, ledger)
    assert ledger.count(FINISHED, STOPPED) == 2


def test_an_eval_loss_that_is_not_finite_can_be_told(run: RunFolder) -> None:
    value = tiny_sweep.mapping(objective="eval_loss", search={"algorithm": "tpe", "trials": 2})
    agenda, ledger, _ = tiny_sweep.agenda(run, from_mapping(value))
    record = agenda.next()
    assert record is not None
    event = rung(0.0, loss=float("nan"))
    record.history.append(event)
    agenda.rung(record, event)
    ledger.finished(record)
    agenda.ended(record)
    run_out(agenda, ledger)
    assert agenda.over


def test_an_interrupted_trial_is_part_of_the_count(run: RunFolder) -> None:
    agenda, _, _ = tiny_sweep.agenda(run, config(trials=1))
    assert agenda.next() is not None
    resumed, ledger, _ = tiny_sweep.agenda(run, config(trials=1))
    assert ledger.count(INTERRUPTED) == 1
    assert sum(record.is_trial for record in run_out(resumed, ledger)) == 1


def test_a_space_that_nothing_fits_ends_soon(run: RunFolder) -> None:
    """A range has no end of configurations; a thousand rejections would tell nothing new."""
    settings = config(
        trials=1,
        quantization="none",
        optimizer="paged_adamw_8bit",
        learning_rate={"log_uniform": [1e-4, 1e-2]},
    )
    agenda, ledger, rejected = tiny_sweep.agenda(run, settings)
    assert not [record for record in run_out(agenda, ledger) if record.is_trial]
    assert agenda.gave_up
    assert not agenda.exhausted  # on other hardware it may go on
    assert len(rejected) < 1000
