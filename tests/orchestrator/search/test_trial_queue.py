"""The trial queue: N distinct feasible trials, baselines, and resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.runs.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.search.trial_queue import TrialQueue
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import finish, run_out, rung
from trainables.spec.states import BASELINE, FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED
from trainables.storage.run_folder import RunFolder

BASELINES = 2  # none and nf4


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def config(*, trials: int = 4, algorithm: str = "random", **space: Any) -> SweepConfig:
    value = tiny_sweep.mapping(search={"algorithm": algorithm, "trials": trials})
    value["space"] |= space
    return from_mapping(value)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid", "one_factor"])
def test_n_distinct_configurations_and_one_baseline_per_base(
    run: RunFolder, algorithm: str
) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=3, algorithm=algorithm))
    given = run_out(trial_queue, ledger)
    assert trial_queue.over and not trial_queue.exhausted
    trials = [record.trial_id for record in given if record.is_trial]
    assert len(trials) == len(set(trials)) == 3
    assert sum(not record.is_trial for record in given) == BASELINES


def test_every_base_gets_its_baseline_even_if_no_trial_of_it_was_suggested(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=1))
    given = run_out(trial_queue, ledger)
    baselines = [record for record in given if record.spec.role == BASELINE]
    assert {record.spec.knobs["quantization"] for record in baselines} == {"none", "nf4"}


def test_baselines_come_last_for_idle_hosts_and_first_for_those_that_wait(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=3))
    idle = [trial_queue.next(host_is_idle=True) for _ in range(2)]
    waiting = trial_queue.next(host_is_idle=False)
    assert [record is not None and record.is_trial for record in (*idle, waiting)] == [
        True,
        True,
        False,
    ]
    for record in (*idle, waiting):
        assert record is not None
        finish(trial_queue, ledger, record)
    rest = []
    while (record := trial_queue.next(host_is_idle=True)) is not None:
        rest.append(record.is_trial)
        finish(trial_queue, ledger, record)
    assert rest == [True, False]
    assert trial_queue.over


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid"])
def test_a_space_that_has_no_more_is_exhausted(run: RunFolder, algorithm: str) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=40, algorithm=algorithm))
    given = run_out(trial_queue, ledger)
    assert trial_queue.over and trial_queue.exhausted
    assert sum(record.is_trial for record in given) == 4


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid", "one_factor"])
def test_a_space_of_one_configuration(run: RunFolder, algorithm: str) -> None:
    settings = config(trials=3, algorithm=algorithm, quantization="none", rank=2)
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    assert len(run_out(trial_queue, ledger)) == 2
    assert trial_queue.exhausted
    resumed, ledger, _ = tiny_sweep.trial_queue(run, settings)
    assert run_out(resumed, ledger) == []
    assert resumed.exhausted


def test_configurations_that_train_the_same_are_one_trial(run: RunFolder) -> None:
    """`double_quantization` is not read without quantization."""
    settings = config(trials=9, quantization="none", double_quantization=[True, False], rank=2)
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    assert sum(record.is_trial for record in run_out(trial_queue, ledger)) == 1


def test_an_excluded_configuration_is_never_given(run: RunFolder) -> None:
    rule = {"quantization": "nf4", "rank": 4}
    value = tiny_sweep.mapping(exclude=[rule], search={"algorithm": "tpe", "trials": 9})
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, from_mapping(value))
    knobs = [record.spec.knobs for record in run_out(trial_queue, ledger) if record.is_trial]
    assert len(knobs) == 3
    assert not [each for each in knobs if each["quantization"] == "nf4" and each["rank"] == 4]


def test_nothing_is_given_while_enough_trials_run(run: RunFolder) -> None:
    trial_queue, _, _ = tiny_sweep.trial_queue(run, config(trials=1))
    given = []
    while (record := trial_queue.next()) is not None:
        given.append(record)
    assert sum(record.is_trial for record in given) == 1
    assert not trial_queue.over


def test_what_can_not_run_is_listed_and_does_not_count(run: RunFolder) -> None:
    settings = config(trials=2, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    trials = [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert [record.spec.knobs["optimizer"] for record in trials] == ["adamw", "adamw"]
    for record in rejected:
        assert record.state == INFEASIBLE
        assert "Use adamw" in record.reason
        summary = record.folder.summary()
        assert summary is not None and summary["state"] == INFEASIBLE


def test_what_could_not_run_is_judged_anew_and_still_never_launched(run: RunFolder) -> None:
    settings = config(trials=4, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    run_out(trial_queue, ledger)
    assert len(rejected) == 2
    for record in ledger.with_state(INFEASIBLE):  # as a driver does at its start
        ledger.run_again(record)
    resumed, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    assert run_out(resumed, ledger) == []
    assert len(rejected) == 2
    assert len(Ledger(run).with_state(INFEASIBLE)) == 2


def test_what_could_not_run_runs_on_a_device_where_it_can(run: RunFolder) -> None:
    settings = config(trials=4, quantization="none", optimizer=["adamw", "paged_adamw_8bit"])
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    run_out(trial_queue, ledger)
    for record in ledger.with_state(INFEASIBLE):
        ledger.run_again(record)
    gpu = tiny_sweep.planner(settings, device_type="cuda")
    resumed, ledger, rejected = tiny_sweep.trial_queue(run, settings, plan=gpu)
    given = run_out(resumed, ledger)
    assert [record.spec.knobs["optimizer"] for record in given] == ["paged_adamw_8bit"] * 2
    assert rejected == []


def test_unfinished_trials_come_first_in_the_order_of_their_suggestion(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config())
    given = [record for _ in range(3) if (record := trial_queue.next()) is not None]
    finish(trial_queue, ledger, given[1])
    resumed, _, _ = tiny_sweep.trial_queue(run, config())
    again = [record for _ in range(2) if (record := resumed.next()) is not None]
    assert [record.trial_id for record in again] == [given[0].trial_id, given[2].trial_id]


def test_a_resumed_sweep_ends_with_all_its_trials_and_runs_none_twice(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=4, algorithm="tpe"))
    first = []
    for _ in range(3):
        record = trial_queue.next()
        assert record is not None
        first.append(record.trial_id)
        finish(trial_queue, ledger, record)
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=4, algorithm="tpe"))
    second = [record.trial_id for record in run_out(resumed, ledger)]
    assert not set(first) & set(second)
    assert ledger.count(FINISHED) == 4
    assert ledger.count(FINISHED, role=BASELINE) == BASELINES


def test_a_finished_sweep_gives_nothing(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    run_out(trial_queue, ledger)
    resumed, _, _ = tiny_sweep.trial_queue(run, config(trials=2))
    assert resumed.over
    assert resumed.next() is None


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid"])
def test_more_trials_may_be_asked_for(run: RunFolder, algorithm: str) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2, algorithm=algorithm))
    before = {record.trial_id for record in run_out(trial_queue, ledger)}
    grown, ledger, _ = tiny_sweep.trial_queue(run, config(trials=4, algorithm=algorithm))
    after = {record.trial_id for record in run_out(grown, ledger)}
    assert len(after) == 2
    assert not after & before
    assert ledger.count(FINISHED) == 4


def test_failed_trials_count_as_done_and_are_left(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    record = trial_queue.next()
    assert record is not None and record.is_trial
    ledger.failed(record, "RuntimeError: out of luck")
    trial_queue.ended(record)
    run_out(trial_queue, ledger)
    assert ledger.count(FINISHED) == 1
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    assert resumed.over
    assert [each.reason for each in ledger.with_state(FAILED)] == ["RuntimeError: out of luck"]


def test_failed_trials_run_again_when_asked_to(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    record = trial_queue.next()
    assert record is not None
    ledger.failed(record, "RuntimeError: out of luck")
    trial_queue.ended(record)
    run_out(trial_queue, ledger)
    ledger.run_again(record)
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    assert [each.trial_id for each in run_out(resumed, ledger)] == [record.trial_id]
    assert ledger.count(FINISHED) == 2


def test_a_stopped_trial_is_done(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=1))
    record = trial_queue.next()
    assert record is not None
    event = rung(0.1, units=8, fraction=0.25)
    record.history.append(event)
    trial_queue.rung(record, event)
    ledger.stopped(record)
    trial_queue.ended(record)
    run_out(trial_queue, ledger)
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=1))
    assert resumed.over
    assert ledger.count(STOPPED) == 1


def test_a_loss_that_was_not_finite_does_not_keep_a_sweep_from_resuming(run: RunFolder) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    record = trial_queue.next()
    assert record is not None
    event = rung(0.0, loss=float("nan"))
    record.history.append(event)
    trial_queue.rung(record, event)
    ledger.stopped(record)
    trial_queue.ended(record)
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=2))
    run_out(resumed, ledger)
    assert ledger.count(FINISHED, STOPPED) == 2


def test_an_eval_loss_that_is_not_finite_can_be_told(run: RunFolder) -> None:
    value = tiny_sweep.mapping(objective="eval_loss", search={"algorithm": "tpe", "trials": 2})
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, from_mapping(value))
    record = trial_queue.next()
    assert record is not None
    event = rung(0.0, loss=float("nan"))
    record.history.append(event)
    trial_queue.rung(record, event)
    ledger.finished(record)
    trial_queue.ended(record)
    run_out(trial_queue, ledger)
    assert trial_queue.over


def studied(trial_queue: TrialQueue) -> dict[str, Any]:
    """What the study knows of the sweep's trials, by trial id."""
    found = [trial for trial in trial_queue._search.study.trials if trial.user_attrs]
    return {trial.user_attrs["trial_id"]: trial for trial in found}


def refuse(trial_queue: TrialQueue, ledger: Ledger, record: TrialRecord) -> None:
    """What a trial's worker and the runner do with one that runs out of memory."""
    ledger.infeasible(record, "OutOfMemoryError: CUDA out of memory.")
    trial_queue.ended(record)


def next_trial(trial_queue: TrialQueue) -> TrialRecord:
    """The next trial that is no baseline."""
    record = trial_queue.next()
    assert record is not None
    return record if record.is_trial else next_trial(trial_queue)


def test_a_stopped_trial_reaches_the_study_with_all_its_values_also_after_a_resume(
    run: RunFolder,
) -> None:
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, config(trials=4))
    record = next_trial(trial_queue)
    for units, em_acc in ((8, 0.25), (16, 0.5)):
        event = rung(em_acc, units=units, fraction=units / 32)
        record.history.append(event)
        trial_queue.rung(record, event)
    ledger.stopped(record)
    trial_queue.ended(record)
    resumed, _, _ = tiny_sweep.trial_queue(run, config(trials=4))
    for known in (studied(trial_queue), studied(resumed)):
        trial = known[record.trial_id]
        assert trial.state.name == "PRUNED"
        assert list(trial.intermediate_values) == [8, 16]
        assert trial.intermediate_values[8] == pytest.approx(0.25, abs=0.1)  # and its tie-break
        assert trial.value == trial.intermediate_values[16]


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid"])
def test_it_gives_as_many_at_once_as_are_asked_for(run: RunFolder, algorithm: str) -> None:
    settings = config(trials=8, algorithm=algorithm, rank=[1, 2, 3, 4, 5], batch_size=[1, 2])
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    given = [next_trial(trial_queue).trial_id for _ in range(8)]
    assert len(set(given)) == 8
    assert ledger.count(RUNNING) == 8
    assert sum(trial.state.name == "RUNNING" for trial in studied(trial_queue).values()) == 8


def test_tpe_is_told_of_those_that_run_and_proposes_elsewhere(run: RunFolder) -> None:
    settings = config(trials=64, algorithm="tpe", rank={"integers": [1, 200]})
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    for _ in range(15):
        finish(trial_queue, ledger, next_trial(trial_queue), value=0.5)
    ranks = [next_trial(trial_queue).spec.knobs["rank"] for _ in range(10)]
    assert len(set(ranks)) > 5


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid"])
def test_what_needs_at_least_as_much_as_what_did_not_fit_is_never_launched(
    run: RunFolder, algorithm: str
) -> None:
    settings = config(
        trials=99, algorithm=algorithm, rank=[2, 4, 8], batch_size=[1, 2, 4], alpha=[8, 16]
    )
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    refused: list[dict[str, Any]] = []
    while (record := trial_queue.next()) is not None:
        knobs = record.spec.knobs
        if record.is_trial and knobs["rank"] * knobs["batch_size"] > 8:
            assert not [
                smaller
                for smaller in refused
                if smaller["quantization"] == knobs["quantization"]
                and smaller["rank"] <= knobs["rank"]
                and smaller["batch_size"] <= knobs["batch_size"]
            ]
            refused.append(dict(knobs))
            refuse(trial_queue, ledger, record)
        else:
            finish(trial_queue, ledger, record)
    assert trial_queue.over and trial_queue.exhausted
    assert ledger.count(FINISHED) == 2 * 6 * 2  # all that fits: quantization, the six, alpha
    assert len(refused) <= 2 * 3  # of 12 that do not fit
    named = {record.trial_id: record.reason for record in ledger.with_state(INFEASIBLE)}
    assert len(named) == 12  # the others are listed, with the reason
    assert sum("needs at least the memory of" in why for why in named.values()) == 12 - len(refused)


def test_a_dominated_configuration_is_the_worst_to_the_study_and_is_listed(run: RunFolder) -> None:
    settings = config(trials=9, algorithm="grid", quantization="none", rank=[2, 4, 8])
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    small = next_trial(trial_queue)
    refuse(trial_queue, ledger, small)
    assert [record.trial_id for record in run_out(trial_queue, ledger) if record.is_trial] == []
    assert ledger.count(INFEASIBLE) == 3
    reason = f"needs at least the memory of {small.trial_id}, which did not fit"
    assert [record.reason for record in rejected] == [reason] * 2
    trials = trial_queue._search.study.trials
    assert [(trial.state.name, trial.values) for trial in trials] == [("PRUNED", None)] * 3


def test_verdicts_belong_to_one_start(run: RunFolder) -> None:
    settings = config(trials=9, algorithm="grid", quantization="none", rank=[2, 4, 8])
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    refuse(trial_queue, ledger, next_trial(trial_queue))
    run_out(trial_queue, ledger)
    for record in ledger.with_state(INFEASIBLE):  # as a driver does at its start
        ledger.run_again(record)
    resumed, ledger, _ = tiny_sweep.trial_queue(run, settings)
    again = [record for record in run_out(resumed, ledger) if record.is_trial]
    assert [record.spec.knobs["rank"] for record in again] == [2, 4, 8]


def test_a_waiting_trial_that_needs_more_than_what_did_not_fit_is_not_launched(
    run: RunFolder,
) -> None:
    settings = config(trials=3, algorithm="grid", quantization="none", rank=[2, 4, 8])
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    for _ in range(3):
        next_trial(trial_queue)
    resumed, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    small = next_trial(resumed)
    refuse(resumed, ledger, small)
    run_out(resumed, ledger)
    assert [record.spec.knobs["rank"] for record in rejected] == [4, 8]
    assert f"needs at least the memory of {small.trial_id}" in rejected[0].reason


def test_what_the_device_rules_out_is_said_once_while_there_is_something_else(
    run: RunFolder,
) -> None:
    """In a space of choices the rest is listed once nothing else is left."""
    settings = config(
        trials=20,
        rank={"integers": [1, 500]},
        optimizer=["paged_adamw_8bit", "adamw"],
        learning_rate={"log_uniform": [1e-4, 1e-2]},
    )
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    run_out(trial_queue, ledger)
    assert ledger.count(FINISHED) == 20
    assert len(rejected) == 1


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid", "one_factor"])
def test_what_is_given_runs_first_counts_and_is_not_run_again(
    run: RunFolder, algorithm: str
) -> None:
    given: list[dict[str, Any]] = [
        {"rank": 4, "quantization": "nf4"},
        {"quantization": "none", "rank": 2},
    ]
    search = {"algorithm": algorithm, "trials": 3, "start_with": [*given, given[0]]}
    settings = from_mapping(tiny_sweep.mapping(search=search))
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings)
    first = [next_trial(trial_queue) for _ in range(2)]
    for record, wanted in zip(first, given, strict=True):
        assert {**record.spec.knobs, **wanted} == record.spec.knobs
    finish(trial_queue, ledger, first[0])
    resumed, ledger, _ = tiny_sweep.trial_queue(run, settings)
    later = [record.trial_id for record in run_out(resumed, ledger) if record.is_trial]
    assert later[0] == first[1].trial_id  # it was interrupted
    assert first[0].trial_id not in later
    assert ledger.count(FINISHED) == 3


def test_a_given_configuration_that_is_known_is_answered_from_its_result(run: RunFolder) -> None:
    given = {"rank": 4, "quantization": "nf4"}
    search = {"algorithm": "random", "trials": 2, "start_with": [given, given]}
    trial_queue, ledger, _ = tiny_sweep.trial_queue(
        run, from_mapping(tiny_sweep.mapping(search=search))
    )
    finish(trial_queue, ledger, next_trial(trial_queue), value=0.75)
    run_out(trial_queue, ledger)
    twice = [
        trial
        for trial in trial_queue._search.study.trials
        if trial.params == {"rank": 4, "quantization": "nf4"}
    ]
    assert len(twice) >= 2
    assert len({trial.value for trial in twice}) == 1
    assert ledger.count(FINISHED) == 2


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "grid", "one_factor"])
def test_several_objectives_are_told_for_each_trial(run: RunFolder, algorithm: str) -> None:
    names = ["em_acc", "train_peak_memory_bytes"]
    search = {"algorithm": algorithm, "trials": 4}
    value = tiny_sweep.mapping(objective=names, search=search, scheduler="none")
    value["space"] |= {"rank": [2, 4, 8, 16]}
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, from_mapping(value))
    failed = next_trial(trial_queue)
    ledger.failed(failed, "RuntimeError: out of luck")
    trial_queue.ended(failed)
    record = next_trial(trial_queue)
    metrics = {**rung(0.5).metrics, "train_peak_memory_bytes": 2e9}
    event = replace(rung(0.5), metrics=metrics)
    record.history.append(event)
    trial_queue.rung(record, event)
    ledger.finished(record)
    trial_queue.ended(record)
    refuse(trial_queue, ledger, next_trial(trial_queue))
    found = studied(trial_queue)[record.trial_id]
    assert found.values == [pytest.approx(0.5, abs=0.1), 2e9]
    states = [trial.state.name for trial in studied(trial_queue).values()]
    assert states == ["FAIL", "COMPLETE", "PRUNED"]


def test_an_interrupted_trial_is_part_of_the_count(run: RunFolder) -> None:
    trial_queue, _, _ = tiny_sweep.trial_queue(run, config(trials=1))
    assert trial_queue.next() is not None
    resumed, ledger, _ = tiny_sweep.trial_queue(run, config(trials=1))
    assert ledger.count(INTERRUPTED) == 1
    assert sum(record.is_trial for record in run_out(resumed, ledger)) == 1


def test_a_space_that_nothing_fits_ends_soon(run: RunFolder) -> None:
    """A range has unlimited configurations; a thousand rejections would tell nothing new."""
    settings = config(
        trials=1,
        quantization="none",
        optimizer="paged_adamw_8bit",
        learning_rate={"log_uniform": [1e-4, 1e-2]},
    )
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings)
    assert not [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert trial_queue.gave_up
    assert not trial_queue.exhausted  # on other hardware it may go on
    assert len(rejected) == 1
