"""The report split: what a scoring asks for, and what becomes of one that can't succeed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from orchestrator.execution import report_split
from orchestrator.execution.report_split import score_reports
from orchestrator.reporting.builder import build_report
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.state import remember
from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from trainables.workers.outcomes import Failure

TOO_LARGE = Failure("needs 117 GiB of 80 GiB", infeasible=True)
GONE = Failure("its folder can't be written", storage=True)


class Scheduler:
    """Gives out hosts whose scoring ends as `ends` says; keeps what was asked for."""

    def __init__(self, ends: dict[Any, Any]) -> None:
        self.needs: dict[str, Any] = {}
        self.reopen = self.release = self.replace = _Call(lambda *_: None)
        self.acquire = _Call(self._acquire)
        self._ends = ends

    def _acquire(self, place: str, base_key: str, need: Any) -> Any:
        trial_id = place.removesuffix("/report")
        self.needs[trial_id] = need
        end = self._ends.get((trial_id, need.workers), self._ends.get(trial_id, {}))
        return SimpleNamespace(score_report=_Call(lambda *_: end))


class _Call:
    def __init__(self, function: Any) -> None:
        self.remote = function


@pytest.mark.parametrize(("zero_stage", "hosts", "scored"), [(3, 4, 1), (2, 4, 0), (3, 3, 0)])
def test_a_trial_that_fits_split_only_is_scored_by_as_many_workers_as_trained_it(
    zero_stage: int, hosts: int, scored: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "sweep")
    knobs: Any = {"method": "full", "workers": 4, "zero_stage": zero_stage}
    trial_id = add_trial(run, right=outcomes(60), **knobs).trial_id
    scheduler = Scheduler({trial_id: TOO_LARGE, (trial_id, 4): {"count": 4}})
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(report_split, "wait_for", lambda call, folder, **_: call)
    sweep: Any = SimpleNamespace(
        config=tiny_sweep.config(),
        cluster=SimpleNamespace(host_scheduler=scheduler, shape=SimpleNamespace(count=hosts)),
    )
    unscored = score_reports(sweep, [*Ledger(run)], notify=lambda text: None)
    assert len(unscored) == 1 - scored
    assert scheduler.needs[trial_id].workers == 4 * scored


@pytest.mark.parametrize("placement", ["shared", "exclusive"])
def test_a_trial_is_scored_on_what_it_needs_and_what_can_not_fit_is_not_tried_for_ever(
    placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path / "sweep")
    predicted = {"device_memory_bytes": 5 * 2**30}
    small, large, lost = (
        add_trial(run, right=outcomes(60), prediction=predicted, **knobs).trial_id
        for knobs in ({"rank": 2}, {"method": "full", "workers": 4, "zero_stage": 3}, {"rank": 4})
    )
    scheduler = Scheduler({large: TOO_LARGE, lost: GONE})  # and no four hosts for it
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(report_split, "wait_for", lambda call, folder, **_: call)
    sweep: Any = SimpleNamespace(
        config=tiny_sweep.config(resources={"placement": placement}),
        cluster=SimpleNamespace(host_scheduler=scheduler, shape=SimpleNamespace(count=1)),
    )
    said: list[str] = []
    unscored = score_reports(sweep, [*Ledger(run)], notify=said.append)
    assert unscored == {large: TOO_LARGE.reason}
    assert len(said) == 2
    assert scheduler.needs[small].exclusive is (placement == "exclusive")
    assert scheduler.needs[large].exclusive
    assert {need.memory_bytes for need in scheduler.needs.values()} == {5 * 2**30}
    remember(run, unscored=unscored)
    told = f"trial {large} was not scored on the report split: {TOO_LARGE.reason}"
    assert told in build_report(run).markdown()
