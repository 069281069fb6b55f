"""The trial queue and memory: a trial that is estimated not to fit is never launched, is reported
to the study, is listed, and is decided again on other hardware.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.sections import SweepConfig
from orchestrator.planning.planner import Planner
from orchestrator.runs.ledger import TrialRecord
from tests.orchestrator import tiny_sweep
from tests.orchestrator.predicted import MEBIBYTE, LinearPredictions, forecaster, with_memory
from tests.orchestrator.search.test_trial_queue import config, studied
from tests.orchestrator.tiny_sweep import finish
from trainables.resources.estimate import TrialEstimate
from trainables.spec.states import INFEASIBLE
from trainables.storage.run_folder import RunFolder

ALGORITHMS = ["random", "tpe", "nsga2", "grid"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def planner(settings: SweepConfig, mebibytes: int | None) -> Planner:
    available = None if mebibytes is None else mebibytes * MEBIBYTE
    return with_memory(tiny_sweep.planner(settings), available)


def run_out(trial_queue: Any, ledger: Any) -> list[TrialRecord]:
    """As `tiny_sweep.run_out`, for an agenda that gives nothing while it waits for a forecast."""
    given = []
    until = time.monotonic() + 30
    while not trial_queue.over and time.monotonic() < until:
        record = trial_queue.next()
        if record is None:
            time.sleep(0.001)
            continue
        given.append(record)
        finish(trial_queue, ledger, record)
    assert trial_queue.over
    return given


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_does_not_fit_is_never_launched_and_all_that_fits_is(
    run: RunFolder, algorithm: str
) -> None:
    settings = config(trials=99, algorithm=algorithm, batch_size=[1, 2, 4, 8], alpha=8)
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(
        run, settings, plan=planner(settings, 260)
    )
    trials = [record for record in run_out(trial_queue, ledger) if record.is_trial]
    fits = {("none", 1), ("none", 2), ("nf4", 1), ("nf4", 2), ("nf4", 4)}
    launched = {(r.spec.knobs["quantization"], r.spec.knobs["batch_size"]) for r in trials}
    assert launched == fits
    assert len(trials) == 2 * len(fits)  # two ranks
    assert ledger.count(INFEASIBLE) == len(rejected) == 2 * 3
    numbers = [record for record in rejected if "are available" in record.reason]
    assert len(numbers) >= 3  # the others need at least as much as one of these
    for record in numbers:
        assert "Would fit: " in record.reason
        summary = record.folder.summary()
        assert summary is not None and summary["state"] == INFEASIBLE
        assert record.folder.estimate() is not None


def test_the_study_is_told_the_worst_of_what_does_not_fit(run: RunFolder) -> None:
    settings = config(trials=9, algorithm="grid", batch_size=[4], quantization="none")
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(
        run, settings, plan=planner(settings, 260)
    )
    assert not [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert len(rejected) == 2
    states = {trial_id: trial.state.name for trial_id, trial in studied(trial_queue).items()}
    assert set(states.values()) == {"PRUNED"}  # with no value: samplers take it for the worst


def test_every_trial_and_baseline_has_its_prediction_when_it_is_given(run: RunFolder) -> None:
    settings = config(trials=2)
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings, plan=planner(settings, 10_000))
    for record in run_out(trial_queue, ledger):
        told = record.folder.estimate()
        assert told is not None
        assert told["train_memory_bytes"] == (300 if record.is_trial else 0) * MEBIBYTE or (
            record.spec.knobs["quantization"] == "nf4"
        )
        assert told["eval_memory_bytes"] > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_predictions_a_sweep_runs_as_before(run: RunFolder, algorithm: str) -> None:
    settings = config(trials=99, algorithm=algorithm)
    plan = tiny_sweep.planner(settings)
    plan.forecaster = forecaster(MEBIBYTE, LinearPredictions(known=False))
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(run, settings, plan=plan)
    trials = [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert len(trials) == 4
    assert rejected == []
    assert trials[0].folder.estimate() is None


class Slow(LinearPredictions):
    """Answers when it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None:
        assert self.may.wait(10)
        return super().of(request, warns=warns)


def test_nothing_is_given_while_a_forecast_is_made_and_nobody_waits_for_it(run: RunFolder) -> None:
    settings = config(trials=2, quantization="none")
    plan, slow = tiny_sweep.planner(settings), Slow()
    plan.forecaster = forecaster(None, slow)
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings, plan=plan)
    began = time.monotonic()
    assert trial_queue.next() is None
    assert trial_queue.next() is None
    assert time.monotonic() - began < 5  # it did not wait for the answer
    assert not trial_queue.over
    slow.may.set()
    assert len(run_out(trial_queue, ledger)) == 3


def test_what_did_not_fit_runs_on_hardware_where_it_does(run: RunFolder) -> None:
    settings = config(trials=9, batch_size=4, quantization="none")
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(
        run, settings, plan=planner(settings, 260)
    )
    run_out(trial_queue, ledger)
    assert len(rejected) == 2
    for record in ledger.with_state(INFEASIBLE):  # as a driver does at its start
        ledger.run_again(record)
    resumed, ledger, rejected = tiny_sweep.trial_queue(run, settings, plan=planner(settings, 400))
    assert len([record for record in run_out(resumed, ledger) if record.is_trial]) == 2
    assert rejected == []


def test_a_resumed_sweep_has_its_corrections(run: RunFolder) -> None:
    settings = config(trials=4, batch_size=[2, 4], quantization="none", rank=2)
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings, plan=planner(settings, 310))
    while True:
        record = trial_queue.next()
        if record is not None and record.is_trial and record.spec.knobs["batch_size"] == 2:
            break
        time.sleep(0.001)
    peaks = {"train_peak_memory_bytes": 220.0 * MEBIBYTE, "executed_batch_size": 2.0}
    event = tiny_sweep.rung(0.5)
    event = type(event)(**{**event.to_json(), "metrics": {**event.metrics, **peaks}})
    record.history.append(event)
    trial_queue.rung(record, event)
    record.folder.write_summary({"state": "finished", "history": [event.to_json()]})
    ledger.finished(record)
    trial_queue.ended(record)
    plan = planner(settings, 310)
    resumed, ledger, rejected = tiny_sweep.trial_queue(run, settings, plan=plan)
    run_out(resumed, ledger)
    assert plan.forecaster is not None
    assert plan.forecaster.calibration.factors(record.spec.knobs, "cpu").train == 1.1
    assert [r.spec.knobs["batch_size"] for r in rejected] == [4]  # 300 MiB x 1.1 > 310 MiB


def test_a_space_of_ranges_that_nothing_fits_ends(run: RunFolder) -> None:
    settings = config(
        trials=3, quantization="none", batch_size=64, learning_rate={"log_uniform": [1e-4, 1e-2]}
    )
    trial_queue, ledger, rejected = tiny_sweep.trial_queue(
        run, settings, plan=planner(settings, 300)
    )
    assert not [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert trial_queue.gave_up
    assert 1 <= len(rejected) <= 2  # said once; a reason that was said is not said again


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
def test_in_a_space_of_ranges_as_many_run_as_were_asked_for(run: RunFolder, algorithm: str) -> None:
    """A third fits: nothing that does not is launched, whatever the sampler thinks."""
    settings = config(
        trials=12,
        algorithm=algorithm,
        quantization="none",
        batch_size=[1, 8, 16],
        learning_rate={"log_uniform": [1e-4, 1e-2]},
    )
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, settings, plan=planner(settings, 300))
    trials = [record for record in run_out(trial_queue, ledger) if record.is_trial]
    assert {record.spec.knobs["batch_size"] for record in trials} == {1}
    assert len(trials) == 12
