"""Optuna's samplers by the names that a space gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from orchestrator.config.sections import SweepConfig
from orchestrator.space.enumeration import grid_configurations
from orchestrator.space.one_factor import one_factor
from orchestrator.space.tree import Sample


def _tpe(seed: int, trials: int) -> Any:
    import optuna

    startup = max(4, min(10, trials // 3))
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
    )


def _random(seed: int, trials: int) -> Any:
    import optuna

    del trials
    return optuna.samplers.RandomSampler(seed=seed)


def _nsga2(seed: int, trials: int) -> Any:
    """NSGA-II (Deb et al. 2002), of at least four generations within the trials asked for."""
    import optuna

    population = max(4, min(50, trials // 4))
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


SEARCHERS: dict[str, Callable[[int, int], Any]] = {
    "tpe": _tpe,
    "random": _random,
    "nsga2": _nsga2,
    "grid": _random,  # in these two, configurations are imposed; nothing is left to sample
    "one_factor": _random,
}
ORDERS: dict[str, Callable[[SweepConfig], Iterator[Sample]]] = {
    "grid": lambda config: grid_configurations(config.space, config.exclude),
    "one_factor": lambda config: one_factor(config.space, config.exclude, config.search.reference),
}
