"""The contract of every row of SCHEDULERS.

Trials are simulated: each has a fixed quality, reports it at every rung, and ends if the scheduler
stops it there.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SchedulerConfig, rungs
from orchestrator.config.writer import to_mapping
from orchestrator.search.schedulers import SCHEDULERS
from tests.orchestrator import tiny_sweep

BUDGET = 640
STOP = "STOP"
STOPPING = [kind for kind in SCHEDULERS if kind != "none"]
Step = tuple[str, int]


@dataclass
class Simulation:
    """Trials of known quality under one scheduler; `stopped` has the units at each stop."""

    kind: Any
    quality: Mapping[str, float]
    strata: Mapping[str, str | None] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)
    told: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = new(self.kind)

    def live(self, steps: Sequence[Step]) -> None:
        for name, units in steps:
            if name not in self.stopped:
                self.told.append((name, units))
                if self.tell(name, units) == STOP:
                    self.stopped[name] = units

    def tell(self, name: str, units: int) -> str:
        trial = SimpleNamespace(
            trial_id="tune's own",
            config={"trial_id": name, "stratum": self.strata.get(name, "one")},
        )
        result = {"units": units, "objective": self.quality[name], "done": units == BUDGET}
        if units == BUDGET:
            self.scheduler.on_trial_complete(None, trial, result)
            return "CONTINUE"
        return str(self.scheduler.on_trial_result(None, trial, result))

    def reborn(self, *, shuffled: int | None = None) -> Simulation:
        """The same trials under a new scheduler that is rebuilt from their histories."""
        other = Simulation(self.kind, self.quality, self.strata, dict(self.stopped), [*self.told])
        names = list(dict.fromkeys(name for name, _ in self.told))
        if shuffled is not None:
            random.Random(shuffled).shuffle(names)
        for name in names:
            stratum = self.strata.get(name, "one")
            if stratum is not None:
                other.scheduler.replay(name, stratum, self._history(name))
        return other

    def _history(self, name: str) -> list[dict[str, float]]:
        value = self.quality[name]
        return [{"units": units, "objective": value} for who, units in self.told if who == name]


def new(kind: Any) -> Any:
    return SCHEDULERS[kind](SchedulerConfig(kind=kind), BUDGET)


def points(kind: Any) -> list[int]:
    return [round(fraction * BUDGET) for fraction in rungs(SchedulerConfig(kind=kind))]


def one_by_one(kind: Any, names: Sequence[str]) -> list[Step]:
    return [(name, units) for name in names for units in points(kind)]


def many(count: int = 24) -> dict[str, float]:
    return {f"trial {number}": 0.5 + number / 100 for number in range(count)}


@pytest.mark.parametrize("kind", STOPPING)
def test_a_clearly_weak_trial_is_stopped_once_there_are_enough_others(kind: str) -> None:
    for weak in (f"weak {number}" for number in range(8)):  # names, so that all brackets occur
        simulation = Simulation(kind, {**many(40), weak: 0.01})
        simulation.live(one_by_one(kind, [*many(40), weak]))
        assert simulation.stopped.get(weak, BUDGET) < BUDGET


@pytest.mark.parametrize("kind", SCHEDULERS)
@given(seed=st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_the_best_trial_is_never_stopped(kind: str, seed: int) -> None:
    quality = {**many(12), "best": 0.99}
    steps = one_by_one(kind, list(quality))
    random.Random(seed).shuffle(steps)
    simulation = Simulation(kind, quality)
    simulation.live(sorted(steps, key=lambda step: step[1] * (seed % 2)))
    assert "best" not in simulation.stopped


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_equal_trials_are_all_kept(kind: str) -> None:
    simulation = Simulation(kind, dict.fromkeys(many(), 0.5))
    simulation.live(one_by_one(kind, list(many())))
    assert simulation.stopped == {}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_trials_of_different_strata_are_never_compared(kind: str) -> None:
    quality = {**many(), "small": 0.01}
    simulation = Simulation(kind, quality, {"small": "small/nf4"})
    simulation.live(one_by_one(kind, list(quality)))
    assert "small" not in simulation.stopped


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("value", [-9.0, 9.0])
def test_baselines_are_neither_stopped_nor_compared_with(kind: str, value: float) -> None:
    plain = Simulation(kind, many())
    plain.live(one_by_one(kind, list(many())))
    baselines = {f"baseline {number}": value for number in range(9)}
    beside = Simulation(kind, {**baselines, **many()}, dict.fromkeys(baselines))
    beside.live(one_by_one(kind, [*baselines, *many()]))
    assert beside.stopped == plain.stopped


@pytest.mark.parametrize("kind", STOPPING)
def test_a_result_that_is_not_finite_is_the_worst_and_moves_no_cutoff(kind: str) -> None:
    """An eval loss that is NaN counts as infinite (`objective_of_metric`)."""
    order = [*reversed(many())]
    plain = Simulation(kind, many())
    plain.live(one_by_one(kind, order))
    broken = {f"broken {number}": -math.inf for number in range(9)}
    beside = Simulation(kind, {**broken, **many()})
    beside.live(one_by_one(kind, [*broken, *order]))
    assert beside.stopped == plain.stopped
    late = Simulation(kind, {**many(40), **broken})
    late.live(one_by_one(kind, [*many(40), *broken]))
    assert all(late.stopped.get(name, BUDGET) < BUDGET for name in broken)


@pytest.mark.parametrize("kind", SCHEDULERS)
@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=30),
    cut=st.floats(0, 1),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_a_rebuilt_scheduler_decides_as_the_undisturbed_one(
    kind: str, values: list[float], cut: float, seed: int
) -> None:
    quality = {f"trial {number}": value for number, value in enumerate(values)}
    strata: dict[str, str | None] = {name: "ab"[len(name) % 2] for name in quality}
    steps = _interleaved(one_by_one(kind, list(quality)), seed)
    at = round(cut * len(steps))
    undisturbed = Simulation(kind, quality, strata)
    undisturbed.live(steps[:at])
    reborn = undisturbed.reborn(shuffled=seed)
    reborn = reborn.reborn()  # rebuilt twice
    undisturbed.live(steps[at:])
    reborn.live(steps[at:])
    assert reborn.stopped == undisturbed.stopped


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_rung_that_is_told_again_counts_once(kind: str) -> None:
    """A trial that resumes from a checkpoint reports its earlier rungs again."""
    quality = {**many(4), "late": 0.505}
    steps = one_by_one(kind, list(many(4)))
    once, again = Simulation(kind, quality), Simulation(kind, quality)
    once.live(steps)
    again.live(steps)
    for name in many(4):
        again.scheduler.replay(name, "one", again._history(name))
    for simulation in (once, again):
        simulation.live(one_by_one(kind, ["late"]))
    assert again.stopped == once.stopped


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_failure_and_a_result_without_an_objective_are_no_rungs(kind: str) -> None:
    scheduler = new(kind)
    trial = SimpleNamespace(trial_id="1", config={"trial_id": "a", "stratum": "one"})
    failure = {"failure": {"reason": "", "infeasible": False}, "units": 40, "done": True}
    scheduler.on_trial_complete(None, trial, failure)
    assert scheduler.on_trial_result(None, trial, {"units": 40, "done": False}) == "CONTINUE"


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_scheduler_is_chosen_by_its_name_and_written_out_whole(kind: str) -> None:
    config = tiny_sweep.config(scheduler=kind)
    assert config.scheduler.kind == kind
    written = to_mapping(config)
    assert from_mapping(written) == config
    assert written["scheduler"] == "none" or list(written["scheduler"]) == [kind]


def _interleaved(steps: list[Step], seed: int) -> list[Step]:
    """The steps in a random order that preserves the order within each trial."""
    rng = random.Random(seed)
    names = [name for name, _ in steps]
    rng.shuffle(names)
    left: dict[str, list[int]] = {}
    for name, units in steps:
        left.setdefault(name, []).append(units)
    return [(name, left[name].pop(0)) for name in names]
