"""Specification of the callback: what a result does to the ledger, the search and who watches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.cluster import Cluster
from orchestrator.hosts import HostShape
from orchestrator.ledger import Ledger, TrialRecord
from orchestrator.runner import AgendaSearcher, Sweep, SweepCallback, stratum
from orchestrator.schedulers import SCHEDULERS
from tests.orchestrator import tiny_sweep
from tests.orchestrator.tiny_sweep import rung
from trainables.run_folder import RunFolder
from trainables.spec import FAILED, FINISHED, INFEASIBLE, STOPPED, Event


class Told:
    """A watcher that writes down what it is told, and an admission that notes what is released."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.released: list[str] = []
        self.release = SimpleNamespace(remote=self.released.append)

    def trial_started(self, record: TrialRecord) -> None:
        self.calls.append(("started", record.trial_id))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        self.calls += [(event.kind, record.trial_id) for event in events]

    def trial_ended(self, record: TrialRecord) -> None:
        self.calls.append((record.state, record.trial_id))


def cluster(admission: Any) -> Cluster:
    return Cluster(HostShape(1, 0, 2), admission, "admission", {})


class Running:
    """A sweep of which one trial has been started."""

    def __init__(self, run: RunFolder) -> None:
        settings = tiny_sweep.config()
        agenda, self.ledger, _ = tiny_sweep.agenda(run, settings)
        self.told = Told()
        self.sweep = Sweep(settings, agenda, self.ledger, cluster(self.told), [self.told])
        scheduler = SCHEDULERS["asha"](settings.scheduler, settings.budget.train_examples)
        self.callback = SweepCallback(self.sweep, scheduler)
        self.config = AgendaSearcher(self.sweep).suggest("tune's own")
        assert isinstance(self.config, dict)
        self.trial = SimpleNamespace(config=self.config, error_file="error.txt")
        self.record = self.ledger.records[self.config["trial_id"]]

    def result(self, **result: Any) -> None:
        self.callback.on_trial_result(1, [], self.trial, result)

    def event(self, event: Event) -> None:
        self.result(event=event.to_json(), units=event.units)

    def complete(self) -> None:
        self.callback.on_trial_complete(1, [], self.trial)

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


def test_a_trial_that_ends_unfinished_was_stopped_early(running: Running) -> None:
    running.event(rung(0.5, units=8, fraction=0.25))
    running.complete()
    assert running.record.state == STOPPED
    assert Ledger(running.ledger.run).records[running.record.trial_id].state == STOPPED
    assert running.heard()[-1] == STOPPED


@pytest.mark.parametrize(("infeasible", "state"), [(True, INFEASIBLE), (False, FAILED)])
def test_a_failure_is_written_down_with_its_reason(
    running: Running, infeasible: bool, state: str
) -> None:
    running.result(failure={"reason": "because", "infeasible": infeasible}, units=0)
    running.complete()
    read = Ledger(running.ledger.run).records[running.record.trial_id]
    assert (read.state, read.reason) == (state, "because")
    assert running.heard() == ["started", state]


def test_a_proxy_that_broke_fails_its_trial_and_gives_its_host_back(running: Running) -> None:
    running.callback.on_trial_error(1, [], running.trial)
    assert running.record.state == FAILED
    assert running.told.released == [running.record.trial_id]


def test_a_trial_that_goes_on_from_a_checkpoint_has_each_event_once(running: Running) -> None:
    first, second = rung(0.25, units=8, fraction=0.25), rung(0.5, units=16, fraction=0.5)
    lost = Event("progress", 3, 12, {"train_loss": 1.0})
    running.event(first)
    running.event(lost)
    running.result(event=second.to_json(), units=16, history=[first.to_json()])
    assert running.record.history == [first, second]


def test_nothing_is_suggested_while_all_are_running(running: Running) -> None:
    searcher = AgendaSearcher(running.sweep)
    given = [searcher.suggest(str(number)) for number in range(9)]
    assert sum(isinstance(each, dict) for each in given) == 5  # three trials and two baselines
    assert given[-1] is None


def test_a_sweep_that_is_over_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "over")
    agenda, ledger, _ = tiny_sweep.agenda(run, tiny_sweep.config())
    tiny_sweep.run_out(agenda, ledger)
    sweep = Sweep(tiny_sweep.config(), agenda, ledger, cluster(None), [])
    assert AgendaSearcher(sweep).suggest("1") == "FINISHED"


def test_a_baseline_is_compared_with_nothing(running: Running) -> None:
    spec = tiny_sweep.planner(running.sweep.config).baseline(running.record.spec.knobs)
    baseline = running.ledger.add(spec, {})
    assert stratum(running.sweep.config, baseline) is None
    assert stratum(running.sweep.config, running.record) is not None
