"""Importance of knobs: effects are found, absent effects are reported, noise is not an effect."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.importance import importance, knob_verdicts
from orchestrator.analysis.knob_levels import levels_of
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.events import Event
from trainables.storage.trial_folder import TrialFolder
from trainables.tasks.exact_match import EM_ACC
from trainables.tasks.finqa.task import FinQA

Score = Callable[[Mapping[str, Any], random.Random], float]


def simulated(
    count: int,
    score: Score,
    *,
    seed: int = 0,
    stop: bool = False,
    batch_sizes: Sequence[int | str] = (4, 8),
) -> list[TrialResult]:
    """Trials of a random search; with `stop`, the worse half ends at the first rung."""
    generator = random.Random(seed)
    trials = []
    for place in range(count):
        knobs = {
            "model": generator.choice(["small", "large"]),
            "quantization": generator.choice(["none", "int8", "nf4", "fp4"]),
            "rank": generator.choice([4, 8, 16, 32]),
            "alpha": generator.choice([16.0, 32.0]),
            "learning_rate": 10 ** generator.uniform(-4, -2.5),
            "batch_size": generator.choice(batch_sizes),
        }
        trials.append((place, knobs, score(knobs, generator)))
    middle = sorted(value for _, _, value in trials)[count // 2]
    return [_trial(*item, stopped=stop and item[2] < middle) for item in trials]


def _trial(place: int, knobs: Mapping[str, Any], value: float, *, stopped: bool) -> TrialResult:
    rung = Event("rung", 1, 8, {"em_acc": value}, 0.25)
    return TrialResult(
        folder=TrialFolder(Path(f"t{place}")), role="trial",
        state="stopped" if stopped else "finished", reason="", knobs=knobs,
        metrics={"em_acc": value}, report_metrics={}, report_count=0, step=1, units=8,
        fraction=1.0, seconds={}, history=(rung,), facts={}, provenance={}, attempts=1,
        task_metrics=FinQA.metrics,
    )  # fmt: skip


def noise(knobs: Mapping[str, Any], generator: random.Random) -> float:
    del knobs
    return 0.3 + generator.gauss(0, 0.05)


def large_is_better(knobs: Mapping[str, Any], generator: random.Random) -> float:
    return noise(knobs, generator) + 0.2 * float(knobs["model"] == "large")


def nf4_is_worse(knobs: Mapping[str, Any], generator: random.Random) -> float:
    return noise(knobs, generator) - 0.2 * float(knobs["quantization"] == "nf4")


@pytest.mark.parametrize("count", [14, 48])
def test_a_knob_that_matters_is_found_with_its_size(count: int) -> None:
    last = importance(simulated(count, large_is_better), metric=EM_ACC)[-1]
    (effect,) = [effect for effect in last.effects if effect.knob == "model"]
    assert effect.found and effect.low <= effect.difference <= effect.high
    assert (effect.low_level, effect.high_level) == ("large", "small")
    assert effect.low < -0.2 < effect.high
    assert effect.adjusted == (count == 48)


def test_each_quantization_is_compared_with_none() -> None:
    last = importance(simulated(60, nf4_is_worse), metric=EM_ACC)[-1]
    effects = {e.high_level: e for e in last.effects if e.knob == "quantization"}
    assert set(effects) == {"int8", "nf4", "fp4"}
    assert effects["nf4"].found and effects["nf4"].difference == pytest.approx(-0.2, abs=0.06)
    assert not effects["int8"].found and effects["int8"].verdict == "no difference found"


def test_chance_is_rarely_taken_for_an_effect() -> None:
    """95% intervals: in 60 sweeps x 6 knobs about 18 would be expected if they were exact."""
    found = 0
    for seed in range(60):
        for item in importance(simulated(12, noise, seed=seed), metric=EM_ACC)[-1:]:
            found += sum(knob_verdicts(item.effects).values())
    assert found <= 0.06 * 60 * 6


def test_stopped_trials_count_at_their_rung_and_are_censored_after() -> None:
    first, last = importance(simulated(20, large_is_better, stop=True), metric=EM_ACC)
    assert (first.fraction, first.trials, first.started) == (0.25, 20, 20)
    assert not first.censored and knob_verdicts(first.effects)["model"]
    assert last.fraction == 1.0 and last.trials == 10 and last.censored


def test_too_few_trials_are_said_to_be_too_few() -> None:
    (first, last) = importance(simulated(5, noise), metric=EM_ACC)
    assert first.effects == () and "too few trials (5" in last.notes[0]
    assert importance([], metric=EM_ACC) == []


def test_trials_that_all_score_the_same_show_no_difference() -> None:
    for item in importance(simulated(12, lambda knobs, generator: 0.1), metric=EM_ACC):
        assert item.effects and not any(effect.found for effect in item.effects)


def test_numbers_are_binned_only_where_there_are_many() -> None:
    assert levels_of([4, 8, 8]) == ["4", "8", "8"]
    assert set(levels_of([1, 2, 3, 4])) == {"1..2", "3..4"}
    assert len(set(levels_of(list(range(30))))) == 3
    assert levels_of([True, False]) == ["true", "false"]
    assert levels_of([["q", "v"], "all-linear"]) == ['["q", "v"]', "all-linear"]


def test_a_word_among_numbers_is_a_level_of_its_own() -> None:
    assert levels_of([4, 8, "auto", 4]) == ["4", "8", "auto", "4"]
    many = [1, "auto", 2, 4, 8, 16, 32, "auto"]
    assert levels_of(many) == ["1..4", "auto", "1..4", "1..4", "8..32", "8..32", "8..32", "auto"]


def test_an_automatic_batch_size_that_matters_is_found_among_explicit_ones() -> None:
    def score(knobs: Mapping[str, Any], generator: random.Random) -> float:
        return noise(knobs, generator) + 0.2 * float(knobs["batch_size"] == "auto")

    trials = simulated(40, score, batch_sizes=(4, 8, "auto"))
    found = [
        effect
        for effect in importance(trials, metric=EM_ACC)[-1].effects
        if effect.knob == "batch_size"
    ]
    assert [(effect.found, effect.high_level) for effect in found] == [(True, "auto")]
