"""The limits: the sweep's hours count all its starts together."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.sections import LimitsConfig
from orchestrator.execution.limits import SweepClock, out_of_hours, trial_limits
from orchestrator.runs.state import has_ended, read_state, remember
from tests.orchestrator import tiny_sweep
from trainables.storage.run_folder import RunFolder


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def test_the_hours_of_all_starts_count(run: RunFolder) -> None:
    limits, time = LimitsConfig(sweep_hours=1), Time()
    first = SweepClock(run, limits, now=time)
    time.now += 2400
    assert not first.used_up
    first.save()
    time.now += 50_000  # nobody drives the sweep
    second = SweepClock(run, limits, now=time)
    assert second.seconds == 2400
    time.now += 1199
    assert not second.used_up
    time.now += 1
    assert second.used_up


def test_a_driver_that_is_killed_forgets_seconds_only(run: RunFolder) -> None:
    time = Time()
    clock = SweepClock(run, LimitsConfig(), now=time)
    for _ in range(95):
        time.now += 1
        clock.update()
    assert SweepClock(run, LimitsConfig(), now=time).seconds >= 85


def test_without_a_limit_the_hours_are_never_used_up(run: RunFolder) -> None:
    time = Time()
    clock = SweepClock(run, LimitsConfig(), now=time)
    time.now += 1e9
    assert not clock.used_up


def test_a_sweep_that_is_out_of_hours_has_ended_until_it_is_given_more(run: RunFolder) -> None:
    one, two = (tiny_sweep.config(limits={"sweep_hours": hours}) for hours in (1, 2))
    remember(run, seconds=3601.0)
    assert not has_ended(run, one)  # killed before its report
    remember(run, out_of_hours=True)
    assert has_ended(run, one)
    assert not has_ended(run, two)
    assert not has_ended(run, tiny_sweep.config())


def test_the_clock_leaves_the_other_facts_alone(run: RunFolder) -> None:
    remember(run, sweep_id="0123")
    SweepClock(run, LimitsConfig(), now=Time()).save()
    assert read_state(run) == {"sweep_id": "0123", "seconds": 0.0}


def test_a_person_is_told_how_to_go_on() -> None:
    told = out_of_hours(LimitsConfig(sweep_hours=1.5), resume_command="python -m it x.yaml")
    assert "1.5 hours" in told
    assert told.endswith("python -m it x.yaml --set limits.sweep_hours=3")


def test_a_trial_is_watched_in_seconds() -> None:
    given = LimitsConfig(trial_hours=0.5, silent_minutes=2)
    assert trial_limits(given) == {"trial_seconds": 1800, "silent_seconds": 120}
    assert trial_limits(LimitsConfig()) == {"trial_seconds": None, "silent_seconds": 1800}
