"""The Tune callback: the effect of a result on the ledger, the search and the observers."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster.hosts.host_shape import HostShape
from orchestrator.cluster.session import Cluster
from orchestrator.config.sections import LimitsConfig
from orchestrator.execution.limits import SweepClock
from orchestrator.execution.running_sweep import Sweep, stratum
from orchestrator.execution.signals import DeferredSignals
from orchestrator.execution.tune_callback import SweepCallback
from orchestrator.execution.tune_loop import _quiet_tune
from orchestrator.execution.tune_searcher import QueueSearcher
from orchestrator.runs.ledger import LOG_TAIL_LINES, Ledger, TrialRecord
from orchestrator.search.schedulers import SCHEDULERS
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import rung
from trainables.spec.events import Event
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED
from trainables.storage.errors import StorageError
from trainables.storage.run_folder import RunFolder
from trainables.workers.outcomes import Failure


class Told:
    """A watcher that records what it is told, and a host scheduler that records replacements."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.replaced: list[str] = []
        self.replace = SimpleNamespace(remote=self.replaced.append)
        self.interruptions = 0
        self.interrupt = SimpleNamespace(remote=self._interrupted)

    def _interrupted(self) -> None:
        self.interruptions += 1

    def trial_started(self, record: TrialRecord) -> None:
        self.calls.append(("started", record.trial_id))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        self.calls += [(event.kind, record.trial_id) for event in events]

    def trial_ended(self, record: TrialRecord) -> None:
        self.calls.append((record.state, record.trial_id))


def cluster(host_scheduler: Any) -> Cluster:
    return Cluster(HostShape(1, 0, 2), host_scheduler, "scheduler", {})


class Running:
    """A sweep of which one trial has been started."""

    def __init__(self, run: RunFolder) -> None:
        settings = tiny_sweep.config()
        trial_queue, self.ledger, _ = tiny_sweep.trial_queue(run, settings)
        self.told = Told()
        self.time = SimpleNamespace(now=0.0)
        limits = LimitsConfig(sweep_hours=1)
        clock = SweepClock(run, limits, now=lambda: self.time.now)
        parts = (settings, trial_queue, self.ledger, cluster(self.told), [self.told], clock)
        self.sweep = Sweep(*parts)
        scheduler = SCHEDULERS["asha"](settings.scheduler, settings.budget.train_examples)
        self.signals = DeferredSignals()
        self.callback = SweepCallback(self.sweep, scheduler, signals=self.signals)
        self.config = QueueSearcher(self.sweep).suggest("tune's own")
        assert isinstance(self.config, dict)
        self.left: list[str] = []  # by proxies, of their hosts
        leave = SimpleNamespace(remote=lambda: self.left.append("host"))
        state = SimpleNamespace(ray_actor=SimpleNamespace(leave=leave))
        self.trial = SimpleNamespace(
            config=self.config, error_file="error.txt", temporary_state=state
        )
        self.record = self.ledger.records[self.config["trial_id"]]

    def result(self, **result: Any) -> None:
        self.callback.on_trial_result(1, [], self.trial, result)

    def event(self, event: Event) -> None:
        self.result(event=event.to_json(), units=event.units)

    def complete(self) -> None:
        self.callback.on_trial_complete(1, [], self.trial)

    def error(self) -> None:
        self.callback.on_trial_error(1, [], self.trial)

    def heard(self) -> list[str]:
        return [call for call, _ in self.told.calls]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(RunFolder(tmp_path / "runs" / "tiny"))


def test_a_trial_is_given_all_that_its_proxy_needs(running: Running) -> None:
    assert isinstance(running.config, dict)
    assert running.config["folder"] == str(running.record.folder.path)
    assert running.config["base_key"] == running.record.spec.base_key
    assert running.config["stratum"] == stratum(running.sweep.config, running.record)
    assert running.heard() == ["started"]


def test_a_trial_that_finishes(running: Running) -> None:
    running.event(rung(0.5, units=8, fraction=0.25))
    running.event(Event("finished", 8, 32, {"em_acc": 0.5}, 1.0, 2.0))
    running.complete()
    assert running.record.state == FINISHED
    assert running.heard() == ["started", "rung", "finished", FINISHED]
    assert running.left == []  # it has left by itself


def test_a_trial_that_ends_unfinished_was_stopped_early(running: Running) -> None:
    running.event(rung(0.5, units=8, fraction=0.25))
    running.complete()
    assert running.record.state == STOPPED
    assert Ledger(running.ledger.run).records[running.record.trial_id].state == STOPPED
    assert running.heard()[-1] == STOPPED
    assert running.left == ["host"]  # at once: others may wait for it, and no trial come after it


@pytest.mark.parametrize(("infeasible", "state"), [(True, INFEASIBLE), (False, FAILED)])
def test_a_failure_is_written_down_with_its_reason(
    running: Running, infeasible: bool, state: str
) -> None:
    running.result(failure=asdict(Failure("because", infeasible=infeasible)), units=0)
    running.complete()
    read = Ledger(running.ledger.run).records[running.record.trial_id]
    assert (read.state, read.reason) == (state, "because")
    assert running.heard() == ["started", state]


def test_a_proxy_that_broke_fails_its_trial_and_its_host_is_replaced(running: Running) -> None:
    running.callback.on_trial_error(1, [], running.trial)
    assert running.record.state == FAILED
    assert running.told.replaced == [running.record.trial_id]


def test_a_trial_that_goes_on_from_a_checkpoint_has_each_event_once(running: Running) -> None:
    first, second = rung(0.25, units=8, fraction=0.25), rung(0.5, units=16, fraction=0.5)
    lost = Event("progress", 3, 12, {"train_loss": 1.0})
    running.event(first)
    running.event(lost)
    running.result(units=8, history=[first.to_json()])
    running.result(event=second.to_json(), units=16)
    assert running.record.history == [first, second]
    running.result(units=0, history=[])  # no checkpoint: from its beginning
    running.result(event=first.to_json(), units=8)
    assert running.record.history == [first]


def test_nothing_is_suggested_while_all_are_running(running: Running) -> None:
    running.event(rung(0.5, units=8, fraction=0.25))
    searcher = QueueSearcher(running.sweep)
    given = [searcher.suggest(str(number)) for number in range(9)]
    assert sum(isinstance(each, dict) for each in given) == 5  # three trials and two baselines
    assert given[-1] is None


def test_each_host_gets_one_trial_and_no_baseline_before_the_first_of_them_trains(
    running: Running,
) -> None:
    searcher = QueueSearcher(running.sweep)
    assert running.sweep.cluster.shape.count == 2
    second, third = searcher.suggest("2"), searcher.suggest("3")
    assert isinstance(second, dict)
    assert running.ledger.records[second["trial_id"]].is_trial
    assert third is None
    running.event(rung(0.5, units=8, fraction=0.25))
    waiting = searcher.suggest("4")
    assert isinstance(waiting, dict)
    assert not running.ledger.records[waiting["trial_id"]].is_trial


def test_a_forecast_that_is_being_made_is_waited_for_while_nothing_runs(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tune would sleep for a second before it asks again."""
    running.event(Event("finished", 8, 32, {"em_acc": 0.5}, 1.0, 2.0))
    running.complete()
    queue, answers = running.sweep.trial_queue, [None, None, running.record]
    monkeypatch.setattr(queue, "next", lambda host_is_idle: answers.pop(0))
    monkeypatch.setattr(queue, "_waits", True)
    config = QueueSearcher(running.sweep).suggest("2")
    assert isinstance(config, dict)
    assert config["trial_id"] == running.record.trial_id


def test_a_sweep_that_is_over_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "over")
    trial_queue, ledger, _ = tiny_sweep.trial_queue(run, tiny_sweep.config())
    tiny_sweep.run_out(trial_queue, ledger)
    clock = SweepClock(run, LimitsConfig())
    sweep = Sweep(tiny_sweep.config(), trial_queue, ledger, cluster(None), [], clock)
    assert QueueSearcher(sweep).suggest("1") == "FINISHED"


def test_a_trial_that_is_interrupted_goes_on_at_the_next_start(running: Running) -> None:
    running.event(rung(0.5, units=8, fraction=0.25))
    running.result(interrupted=True, units=8)
    running.complete()
    assert running.record.state == INTERRUPTED
    assert running.heard()[-1] == INTERRUPTED
    assert (running.record.folder.progress() or {})["state"] == INTERRUPTED
    again, ledger, _ = tiny_sweep.trial_queue(running.ledger.run, running.sweep.config)
    assert again.next() is ledger.records[running.record.trial_id]


def test_a_trial_over_its_hours_is_stopped_with_the_reason(running: Running) -> None:
    event = rung(0.5, units=8, fraction=0.25)
    running.result(event=event.to_json(), units=8, stopped="limits.trial_hours: over")
    running.complete()
    read = Ledger(running.ledger.run).records[running.record.trial_id]
    assert (read.state, read.reason) == (STOPPED, "limits.trial_hours: over")
    assert read.history == [event]


def test_ctrl_c_is_heard_while_tune_only_asks_for_a_trial(running: Running) -> None:
    signals = DeferredSignals()
    callback = SweepCallback(running.sweep, None, signals=signals)
    searcher = QueueSearcher(running.sweep, poll=callback.poll)
    assert isinstance(searcher.suggest("one"), dict)
    with signals:
        signal.raise_signal(signal.SIGTERM)
    searcher.suggest("two")
    assert running.sweep.trial_queue.end_reason == "interrupted"


def test_when_the_hours_are_used_up_nothing_new_starts_and_running_trials_are_told(
    running: Running,
) -> None:
    running.time.now += 2 * 3600
    running.callback.on_step_begin(1, [])
    running.callback.on_step_begin(2, [])
    assert running.told.interruptions == 1
    assert QueueSearcher(running.sweep).suggest("1") is None
    assert not running.sweep.trial_queue.over
    running.result(interrupted=True, units=0)
    running.complete()
    assert QueueSearcher(running.sweep).suggest("1") == "FINISHED"
    assert "limits.sweep_hours" in (running.sweep.trial_queue.end_reason or "")


def test_a_folder_that_can_not_be_written_ends_the_sweep_and_no_trial_is_to_blame(
    running: Running,
) -> None:
    with pytest.raises(StorageError, match="disk is full"):
        running.result(failure=asdict(Failure("the disk is full", storage=True)), units=0)
    assert running.record.state == INTERRUPTED


class BreakingError(Exception):
    """An observer's own fault."""


def breaks(record: TrialRecord, *events: object) -> None:
    raise BreakingError


@pytest.mark.parametrize("when", ["trial_events", "trial_ended"])
def test_an_observer_that_breaks_ends_the_sweep_and_no_trial_is_to_blame(
    when: str, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.told, when, breaks)
    with pytest.raises(BreakingError):
        running.event(rung(0.5, units=8, fraction=0.25))
        running.complete()
    state = running.record.state
    running.error()  # which Tune calls for the trial whose result was being handled
    assert running.record.state == (INTERRUPTED if when == "trial_events" else state)
    with pytest.raises(BreakingError):
        running.callback.poll()


def test_a_proxy_that_ends_by_the_signal_for_the_sweep_has_not_failed(running: Running) -> None:
    with running.signals:
        signal.raise_signal(signal.SIGTERM)
    running.error()
    assert running.record.state == INTERRUPTED


def test_a_proxy_that_breaks_is_a_failed_trial(running: Running) -> None:
    running.error()
    assert (running.record.state, running.record.reason) == (
        FAILED,
        "the trial's proxy broke: error.txt",
    )


def test_a_failed_trial_keeps_the_last_lines_of_its_log(running: Running) -> None:
    for line in range(100):
        running.record.folder.append_log(f"line {line}")
    running.result(failure=asdict(Failure("because")), units=0)
    tail = (running.record.folder.summary() or {})["log_tail"]
    assert tail[-1] == "line 99"
    assert len(tail) == LOG_TAIL_LINES


def fail_trials(running: Running, reasons: Sequence[str], *, may_repeat: bool = True) -> None:
    """Fails one trial after another, as long as the queue gives any."""
    callback = running.callback
    for reason in reasons:
        config = running.config
        if not isinstance(config, dict):
            return
        trial = SimpleNamespace(config=config)
        failure = asdict(Failure(reason.format(config["trial_id"][:6]), may_repeat=may_repeat))
        callback.on_trial_result(1, [], trial, {"failure": failure, "units": 0})
        callback.on_trial_complete(1, [], trial)
        running.config = QueueSearcher(running.sweep).suggest("tune's own")


def test_after_three_failures_with_one_reason_nothing_is_launched_and_it_is_said(
    running: Running,
) -> None:
    said: list[str] = []
    running.sweep.notify = said.append
    running.sweep.resume_command = "python -m orchestrator.sweep x.yaml"
    fail_trials(running, ["IndexError: trial {}: token 896 of 300"] * 2)
    assert not running.sweep.trial_queue.over and said == []
    fail_trials(running, ["IndexError: trial {}: token 41 of 7"] * 5)
    assert running.ledger.count(FAILED) == 3
    assert running.sweep.trial_queue.over
    assert QueueSearcher(running.sweep).suggest("tune's own") == "FINISHED"
    [told] = said
    assert told.startswith("3 trials have failed with one reason, so no more are launched: Index")
    assert told.endswith("x.yaml --retry-failed")
    assert running.sweep.repeated_failure == told
    assert running.told.interruptions == 0  # trials that run go on


@pytest.mark.parametrize(
    ("reasons", "may_repeat"),
    [(["no such file", "no such key", "no such module"], True), (["its host died"] * 3, False)],
)
def test_failures_of_several_reasons_or_of_lost_nodes_stop_nothing(
    running: Running, reasons: list[str], may_repeat: bool
) -> None:
    fail_trials(running, reasons, may_repeat=may_repeat)
    assert running.ledger.count(FAILED) == 3
    assert not running.sweep.trial_queue.ended_early


def test_no_variable_of_the_environment_is_handed_to_ray_which_would_log_it() -> None:
    from ray.tune.execution import class_cache

    _quiet_tune()
    assert not class_cache.ENV_VARS_TO_PROPAGATE


def test_a_baseline_is_compared_with_nothing(running: Running) -> None:
    spec = tiny_sweep.planner(running.sweep.config).baseline(running.record.spec.knobs)
    baseline = running.ledger.add(spec, {})
    assert stratum(running.sweep.config, baseline) is None
    assert stratum(running.sweep.config, running.record) is not None
