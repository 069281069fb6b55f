"""SCHEDULERS: who is stopped early. Rows that build Tune's own schedulers.

ASHA (Li et al. 2020) compares trials at rungs; `within` compares them inside a stratum only, since
over everything it kills the small and the quantized first. Tune does not save rungs: they are
rebuilt from the trials' histories by `replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from orchestrator.config import SchedulerConfig
from trainables.spec import Event

OBJECTIVE, UNITS = "objective", "units"
_JUST_BELOW = 1 - 1e-9  # 0.07 * 100 is more than 7, and a trial is judged at 7


class StratifiedASHA(FIFOScheduler):  # type: ignore[misc]  # Ray carries no types
    """One AsyncHyperBandScheduler per stratum; trials are known by the sweep's own ids.

    Only results that hold `objective` count: rungs before the last, and the finished trial.
    Results of trials without a stratum (the baselines) never stop anything.
    """

    def __init__(self, *, grace: float, reduction: float, budget: int) -> None:
        super().__init__()
        self._new: Callable[[], Any] = lambda: AsyncHyperBandScheduler(
            time_attr=UNITS,
            metric=OBJECTIVE,
            mode="max",
            max_t=budget,
            grace_period=grace * budget * _JUST_BELOW,
            reduction_factor=reduction,
            stop_last_trials=False,
        )
        self._strata: dict[str, AsyncHyperBandScheduler] = {}

    def replay(self, trial_id: str, stratum: str, results: Sequence[Mapping[str, float]]) -> None:
        """Enters what a trial reported in an earlier run; stops nothing."""
        asha, trial = self._stratum(stratum), SimpleNamespace(trial_id=trial_id)
        asha.on_trial_add(None, trial)
        for result in results:
            asha.on_trial_result(None, trial, dict(result))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        stratum = trial.config.get("stratum")
        if stratum is None or OBJECTIVE not in result:
            return str(TrialScheduler.CONTINUE)
        asha, known_as = self._stratum(stratum), SimpleNamespace(trial_id=trial.config["trial_id"])
        asha.on_trial_add(None, known_as)
        return str(asha.on_trial_result(None, known_as, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if not result.get("failure"):
            self.on_trial_result(tune_controller, trial, result)

    def debug_string(self) -> str:
        return f"ASHA in {len(self._strata)} strata"

    def _stratum(self, name: str) -> AsyncHyperBandScheduler:
        if name not in self._strata:
            self._strata[name] = self._new()
        return self._strata[name]


class NoStopping(FIFOScheduler):  # type: ignore[misc]
    """Every trial runs to the end of its budget."""

    def replay(self, trial_id: str, stratum: str, results: Sequence[Mapping[str, float]]) -> None:
        """Nothing to rebuild."""


def _asha(config: SchedulerConfig, budget: int) -> StratifiedASHA:
    return StratifiedASHA(grace=config.grace, reduction=config.reduction, budget=budget)


def _none(config: SchedulerConfig, budget: int) -> NoStopping:
    del config, budget
    return NoStopping()


SCHEDULERS: dict[str, Callable[[SchedulerConfig, int], StratifiedASHA | NoStopping]] = {
    "asha": _asha,
    "none": _none,
}


def judged(
    events: Sequence[Event], objective: Callable[[Mapping[str, float]], float]
) -> list[dict[str, float]]:
    """What a scheduler is told of a trial's events: its rungs."""
    return [
        {UNITS: event.units, OBJECTIVE: objective(event.metrics)}
        for event in events
        if event.kind == "rung"
    ]
