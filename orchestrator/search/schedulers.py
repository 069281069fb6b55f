"""SCHEDULERS: which trials are stopped early; rows that build Tune's own schedulers.

ASHA (Li et al. 2020), HyperBand (several ASHAs with different first rungs) and the median stopping
rule (Golovin et al. 2017) compare trials at rungs; `within` compares them inside a stratum only,
since over everything they kill the small and the quantized first. Tune does not save what its
schedulers know: it is rebuilt from the trials' histories by `replay`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.config.sections import SchedulerConfig
from trainables.spec.events import Event

OBJECTIVE, UNITS = "objective", "units"
_JUST_BELOW = 1 - 1e-9  # 0.07 * 100 is more than 7, and a trial is judged at 7


@dataclass(frozen=True)
class SeenResult:
    """Stands for a trial towards Tune's schedulers, by the sweep's own id."""

    trial_id: str


class Stratified(FIFOScheduler):  # type: ignore[misc]  # Ray carries no types
    """One of Tune's schedulers per stratum; trials are known by the sweep's own ids.

    Only results that hold `objective` count, each once: rungs before the last, and the finished
    trial. Results of trials without a stratum (the baselines) never stop anything.
    """

    def __init__(self, new: Callable[[], Any]) -> None:
        super().__init__()
        self._new = new
        self._strata: dict[str, Any] = {}
        self._reported: dict[str, set[float]] = {}  # units at which each trial was judged

    def replay(self, trial_id: str, stratum: str, results: Sequence[Mapping[str, float]]) -> None:
        """Enters the results that a trial reported in an earlier start; stops nothing."""
        for result in results:
            self._report(trial_id, stratum, result)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stratum = trial.config.get("stratum")
        if stratum is None or OBJECTIVE not in result:
            return str(TrialScheduler.CONTINUE)
        return self._report(trial.config["trial_id"], stratum, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if not result.get("failure"):
            self.on_trial_result(tune_controller, trial, result)

    def debug_string(self) -> str:
        return f"{len(self._strata)} strata"

    def _report(self, trial_id: str, stratum: str, result: Mapping[str, float]) -> str:
        reported = self._reported.setdefault(trial_id, set())
        if result[UNITS] in reported:  # repeated after a resume from a checkpoint
            return str(TrialScheduler.CONTINUE)
        reported.add(result[UNITS])
        if stratum not in self._strata:
            self._strata[stratum] = self._new()
        inner, trial = self._strata[stratum], SeenResult(trial_id)
        inner.on_trial_add(None, trial)
        return str(inner.on_trial_result(None, trial, dict(result)))


class Halving(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Tune's ASHA, for which a result that is not finite is worse than any other.

    It is not kept: a percentile between it and another result would be no number, or infinite, and
    stop nothing.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if not math.isfinite(result[OBJECTIVE]):
            for _, recorded in self._trial_info[trial.trial_id]._rungs:
                if not math.isfinite(recorded.get(trial.trial_id, 0.0)):
                    del recorded[trial.trial_id]
        return decision


class Brackets(FIFOScheduler):  # type: ignore[misc]
    """Asynchronous HyperBand: several ASHAs, each with a later first rung than the one before.

    Tune draws a trial's bracket at random; here it follows from the trial's id, with the same
    probabilities (proportional to e to the number of its rungs), so that a rebuild puts each
    trial into its bracket again.
    """

    def __init__(self, brackets: Sequence[Halving]) -> None:
        super().__init__()
        self._brackets = brackets

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def _of(self, trial: Any) -> Halving:
        return self._brackets[bracket_of(trial.trial_id, brackets=len(self._brackets))]


class MedianRule(MedianStoppingRule):  # type: ignore[misc]
    """Tune's rule; with too few trials to compare with it goes on, where Tune's may pause."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        self._stopped_trials.discard(trial)  # a replay decides nothing, and its trial goes on
        return str(decision)

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        return str(TrialScheduler.CONTINUE)


class NoStopping(FIFOScheduler):  # type: ignore[misc]
    """Every trial runs to the end of its budget."""

    def replay(self, trial_id: str, stratum: str, results: Sequence[Mapping[str, float]]) -> None:
        """Nothing to rebuild."""


def bracket_of(trial_id: str, *, brackets: int) -> int:
    """Which bracket a trial is in: the first most often, each next one e times more rarely."""
    digest = hashlib.sha256(trial_id.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    weights = [math.exp(-bracket) for bracket in range(brackets)]
    for bracket in range(brackets):
        if place < sum(weights[: bracket + 1]) / sum(weights):
            return bracket
    return brackets - 1


def _asha(config: SchedulerConfig, budget: int) -> Stratified:
    return Stratified(lambda: _halving(config, budget))


def _hyperband(config: SchedulerConfig, budget: int) -> Stratified:
    return Stratified(
        lambda: Brackets(
            [_halving(config, budget, bracket=bracket) for bracket in range(config.brackets)]
        )
    )


def _median(config: SchedulerConfig, budget: int) -> Stratified:
    return Stratified(
        lambda: MedianRule(
            time_attr=UNITS,
            metric=OBJECTIVE,
            mode="max",
            grace_period=config.grace * budget * _JUST_BELOW,
            min_samples_required=config.min_trials,
        )
    )


def _none(config: SchedulerConfig, budget: int) -> NoStopping:
    del config, budget
    return NoStopping()


def _halving(config: SchedulerConfig, budget: int, *, bracket: int = 0) -> Halving:
    return Halving(
        time_attr=UNITS,
        metric=OBJECTIVE,
        mode="max",
        max_t=budget,
        grace_period=config.grace * config.reduction**bracket * budget * _JUST_BELOW,
        reduction_factor=config.reduction,
        stop_last_trials=False,
    )


SCHEDULERS: dict[str, Callable[[SchedulerConfig, int], Stratified | NoStopping]] = {
    "asha": _asha,
    "median": _median,
    "hyperband": _hyperband,
    "none": _none,
}


def rung_results(
    events: Sequence[Event], objective: Callable[[Mapping[str, float]], float]
) -> list[dict[str, float]]:
    """The results that a scheduler is given of a trial: its rungs."""
    return [
        {UNITS: event.units, OBJECTIVE: objective(event.metrics)}
        for event in events
        if event.kind == "rung"
    ]
