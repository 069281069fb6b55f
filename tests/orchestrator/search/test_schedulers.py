"""Early stopping: only comparable trials are compared, and resuming restores all results."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.objectives import objectives
from orchestrator.config.sections import SchedulerConfig, rungs
from orchestrator.search.schedulers import SCHEDULERS, Stratified, bracket_of, rung_results
from tests.orchestrator.tiny_sweep import rung
from trainables.spec.events import Event
from trainables.tasks.finqa.task import FinQA

BUDGET = 64
EM_ACC = objectives(FinQA.metrics)["em_acc"]
STOP, CONTINUE = "STOP", "CONTINUE"


def scheduler_of(kind: Any, **options: Any) -> Stratified:
    made = SCHEDULERS[kind](SchedulerConfig(kind=kind, **options), BUDGET)
    assert isinstance(made, Stratified)
    return made


def asha(*, grace: float = 0.25, reduction: float = 2) -> Stratified:
    return scheduler_of("asha", grace=grace, reduction=reduction)


def trial(name: str, stratum: str | None = "one") -> Any:
    return SimpleNamespace(trial_id="tune's own", config={"trial_id": name, "stratum": stratum})


def tell(scheduler: Stratified, who: Any, *, units: int, objective: float) -> str:
    result = {"units": units, "objective": objective, "done": False}
    return scheduler.on_trial_result(None, who, result)


def test_the_weaker_of_two_is_stopped_at_a_rung() -> None:
    scheduler = asha()
    assert tell(scheduler, trial("good"), units=16, objective=0.9) == CONTINUE
    assert tell(scheduler, trial("bad"), units=16, objective=0.1) == STOP


def test_trials_of_different_strata_are_never_compared() -> None:
    scheduler = asha()
    assert tell(scheduler, trial("good", "large/none"), units=16, objective=0.9) == CONTINUE
    assert tell(scheduler, trial("bad", "small/nf4"), units=16, objective=0.1) == CONTINUE


def test_a_baseline_is_neither_stopped_nor_compared_with() -> None:
    scheduler = asha()
    assert tell(scheduler, trial("untrained", None), units=16, objective=9.0) == CONTINUE
    assert tell(scheduler, trial("weak"), units=16, objective=0.1) == CONTINUE
    assert tell(scheduler, trial("weaker"), units=16, objective=0.0) == STOP
    assert tell(scheduler, trial("untrained too", None), units=16, objective=-9.0) == CONTINUE


def test_equal_values_stop_nothing() -> None:
    scheduler = asha()
    for name in range(20):
        assert tell(scheduler, trial(str(name)), units=16, objective=0.5) == CONTINUE


def test_a_result_without_an_objective_is_no_rung() -> None:
    scheduler = asha()
    tell(scheduler, trial("good"), units=16, objective=0.9)
    progress = {"units": 20, "done": False}
    assert scheduler.on_trial_result(None, trial("bad"), progress) == CONTINUE
    assert tell(scheduler, trial("bad"), units=20, objective=0.1) == STOP


def test_a_failure_is_compared_with_nothing() -> None:
    scheduler = asha()
    failure = {"failure": {"reason": "", "infeasible": False}, "units": 16, "done": True}
    scheduler.on_trial_complete(None, trial("failed"), failure)
    assert tell(scheduler, trial("bad"), units=16, objective=-9.0) == CONTINUE


@given(
    values=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1)), min_size=2, max_size=24),
    cut=st.integers(0, 24),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_a_replay_decides_as_if_it_had_lived_through_it(
    values: list[tuple[str, float]], cut: int, seed: int
) -> None:
    rng = random.Random(seed)
    steps = [(name, units) for name in range(len(values)) for units in (16, 32)]
    steps = sorted(steps, key=lambda step: (step[1], rng.random()))
    living, past = asha(), list[tuple[int, int, str]]()
    for name, units in steps[:cut]:
        stratum, objective = values[name]
        past.append((name, units, stratum))
        tell(living, trial(str(name), stratum), units=units, objective=objective)
    replayed = asha()
    for name in dict.fromkeys(name for name, _, _ in past):
        events = [
            rung(values[name][1], units=units, fraction=units / BUDGET)
            for known, units, _ in past
            if known == name
        ]
        results = [
            {**result, "objective": values[name][1]} for result in rung_results(events, EM_ACC)
        ]
        replayed.replay(str(name), values[name][0], results)
    for name, units in steps[cut:]:
        stratum, objective = values[name]
        who = trial(str(name), stratum)
        assert tell(living, who, units=units, objective=objective) == tell(
            replayed, who, units=units, objective=objective
        )


@given(
    grace=st.integers(1, 90).map(lambda percent: percent / 100),
    reduction=st.sampled_from([1.5, 2, 3, 4, 5]),
    budget=st.integers(1, 5000),
)
@settings(max_examples=200, deadline=None)
def test_every_rung_that_a_trial_is_judged_at_is_one_that_it_can_be_stopped_at(
    grace: float, reduction: float, budget: int
) -> None:
    """A rung is taken at the first unit at or after its fraction, as the worker rounds it."""
    config = SchedulerConfig(grace=grace, reduction=reduction)
    scheduler: Any = SCHEDULERS["asha"](config, budget)
    fractions = rungs(config)
    units = sorted({math.ceil((fraction - 1e-9) * budget) for fraction in fractions})
    for at in [each for each in units if 0 < each < budget]:
        assert tell(scheduler, trial(f"good {at}"), units=at, objective=1.0) == CONTINUE
        assert tell(scheduler, trial(f"bad {at}"), units=at, objective=0.0) == STOP


def test_the_median_rule_stops_who_is_below_the_median_of_the_others_averages() -> None:
    scheduler = scheduler_of("median", grace=0.25, reduction=2, min_trials=3)
    for name, early, late in (("a", 0.2, 0.6), ("b", 0.3, 0.7), ("c", 0.4, 0.8)):
        assert tell(scheduler, trial(name), units=16, objective=early) == CONTINUE
        assert tell(scheduler, trial(name), units=32, objective=late) == CONTINUE
    # averages until 16: 0.2, 0.3, 0.4; until 32: 0.4, 0.5, 0.6
    assert tell(scheduler, trial("above"), units=16, objective=0.31) == CONTINUE
    assert tell(scheduler, trial("above"), units=32, objective=0.51) == CONTINUE
    assert tell(scheduler, trial("best so far"), units=16, objective=0.51) == CONTINUE
    assert tell(scheduler, trial("best so far"), units=32, objective=0.1) == CONTINUE
    assert tell(scheduler, trial("below"), units=16, objective=0.2) == STOP


def test_a_rung_that_is_told_again_does_not_weigh_twice() -> None:
    """A trial that goes on from a checkpoint tells what it had reached once more."""
    scheduler = scheduler_of("median", grace=0.25, reduction=2, min_trials=1)
    tell(scheduler, trial("a"), units=16, objective=0.0)
    scheduler.replay("a", "one", [{"units": 16, "objective": 0.0}])
    tell(scheduler, trial("a"), units=32, objective=0.6)
    tell(scheduler, trial("b"), units=16, objective=0.25)
    assert tell(scheduler, trial("b"), units=32, objective=0.25) == STOP  # 0.3 is the average


def test_the_median_rule_waits_for_enough_trials() -> None:
    scheduler = scheduler_of("median", grace=0.25, reduction=2, min_trials=3)
    for name in ("a", "b"):
        tell(scheduler, trial(name), units=16, objective=0.9)
    assert tell(scheduler, trial("third"), units=16, objective=0.1) == CONTINUE
    assert tell(scheduler, trial("fourth"), units=16, objective=0.05) == STOP


def test_brackets_of_hyperband_begin_to_stop_one_rung_after_another() -> None:
    scheduler = scheduler_of("hyperband", grace=0.25, reduction=2, brackets=2)
    names = [f"trial {number}" for number in range(200)]
    early = [name for name in names if bracket_of(name, brackets=2) == 0]
    late = [name for name in names if bracket_of(name, brackets=2) == 1]
    assert len(early) > len(late) > 20
    for good in (early[0], late[0]):
        for units in (16, 32):
            assert tell(scheduler, trial(good), units=units, objective=0.9) == CONTINUE
    assert tell(scheduler, trial(early[1]), units=16, objective=0.1) == STOP
    assert tell(scheduler, trial(late[1]), units=16, objective=0.1) == CONTINUE
    assert tell(scheduler, trial(late[1]), units=32, objective=0.1) == STOP


def test_without_early_stopping_nothing_is_stopped() -> None:
    scheduler = SCHEDULERS["none"](SchedulerConfig(kind="none", within=()), BUDGET)
    for name, objective in (("good", 0.9), ("bad", 0.1)):
        result = {"units": 16, "objective": objective}
        assert scheduler.on_trial_result(None, trial(name), result) == CONTINUE


def test_only_rungs_are_judged() -> None:
    events = [Event("progress", 1, 4, {"train_loss": 1.0}), rung(0.5, units=16, fraction=0.25)]
    assert [result["units"] for result in rung_results(events, EM_ACC)] == [16]
