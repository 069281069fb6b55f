"""SEARCHERS: what to try next. Optuna suggests; what is known already is told, never run again.

The study lives in memory and is rebuilt from the trial directories at each start: a finished
trial is COMPLETE with its value, one that ASHA stopped is PRUNED with all its intermediate
values, and one that can't run is PRUNED with none, which samplers take for the worst there is.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config import SweepConfig
from orchestrator.exclusions import count, excluded
from orchestrator.space import Space, suggest
from trainables.errors import InputError

if TYPE_CHECKING:
    import optuna

Outcome = Literal["complete", "pruned", "worst", "failed"]
_ASKS_BEFORE_FALLING_BACK = 64


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, with the study's own trial behind it."""

    configuration: Mapping[str, Any]
    trial: optuna.trial.Trial
    reported: set[int] = field(default_factory=set)  # units at which a value is known

    @property
    def suggestion(self) -> dict[str, Any]:
        return dict(self.trial.params)


class Search:
    """Proposes configurations of a space, each admissible by its exclusions."""

    def __init__(self, config: SweepConfig, *, known_trials: int = 0) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        # A resumed study has the old results; the same seed would only ask for the same again.
        seed = config.search.seed + known_trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = SEARCHERS[config.search.algorithm](seed, config.search.trials)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._fallback = random.Random(seed)
        self._grid = walk(config.space) if config.search.algorithm == "grid" else None

    @property
    def size(self) -> int | None:
        """How many configurations the space has after exclusions; None where ranges are in it."""
        return count(self._config.space, self._config.exclude)

    def propose(self) -> Proposal | None:
        """The next configuration, or None where a grid has no more."""
        if self._grid is not None:
            return self._next_of_grid()
        for _ in range(_ASKS_BEFORE_FALLING_BACK):
            trial = self._study.ask()
            proposal = Proposal(suggest(self._config.space, trial), trial)
            if not excluded(proposal.configuration, self._config.exclude):
                return proposal
            self.tell(proposal, "worst")
        return None

    def propose_unseen(self, seen: Callable[[Mapping[str, Any]], bool]) -> Proposal | None:
        """Any admissible configuration that is not `seen`, or None if there is none left.

        For a sampler that keeps asking for what is known: a space of choices is walked through
        in a shuffled order, one with ranges is drawn from at random.
        """
        space = self._config.space
        draws: Iterator[tuple[dict[str, Any], dict[str, Any]]]
        if self.size is None:
            draws = (Drawn.from_space(space, self._fallback) for _ in range(10_000))
        else:
            everything = list(walk(space))
            self._fallback.shuffle(everything)
            draws = iter(everything)
        for configuration, suggestion in draws:
            if not excluded(configuration, self._config.exclude) and not seen(configuration):
                return self.replay(suggestion)
        return None

    def report(self, proposal: Proposal, *, units: int, value: float) -> None:
        """An intermediate value of a running trial, at a rung; the first one at a rung stays."""
        if units not in proposal.reported:
            proposal.reported.add(units)
            proposal.trial.report(value, step=units)

    def tell(self, proposal: Proposal, outcome: Outcome, value: float | None = None) -> None:
        """How a proposal ended; `value` goes with 'complete'."""
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "worst": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        self._study.tell(proposal.trial, value, state=states[outcome])

    def replay(self, suggestion: Mapping[str, Any]) -> Proposal:
        """The study's trial for a configuration that was suggested in an earlier run."""
        self._study.enqueue_trial(dict(suggestion))
        trial = self._study.ask()
        return Proposal(suggest(self._config.space, trial), trial)

    def _next_of_grid(self) -> Proposal | None:
        assert self._grid is not None
        for configuration, suggestion in self._grid:
            if not excluded(configuration, self._config.exclude):
                return self.replay(suggestion)
        return None


class Drawn:
    """Stands in for an Optuna trial: each suggestion is drawn at random and recorded."""

    def __init__(self, rng: random.Random) -> None:
        self.params: dict[str, Any] = {}
        self._rng = rng

    @classmethod
    def from_space(cls, space: Space, rng: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
        """A random configuration and the parameters that lead to it."""
        drawn = cls(rng)
        return suggest(space, drawn), drawn.params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._record(name, lambda: self._rng.choice(list(choices)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        value: int = self._record(name, lambda: self._rng.randrange(low, high + 1, step))
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        def draw() -> float:
            if step is not None:
                return round(low + step * self._rng.randint(0, round((high - low) / step)), 15)
            if not log:
                return self._rng.uniform(low, high)
            return min(high, max(low, math.exp(self._rng.uniform(math.log(low), math.log(high)))))

        value: float = self._record(name, draw)
        return value

    def _record(self, name: str, draw: Callable[[], Any]) -> Any:
        if name not in self.params:
            self.params[name] = draw()
        return self.params[name]


class _Step:
    """Stands in for an Optuna trial: takes the choices that a path names, then each first one."""

    def __init__(self, path: Sequence[int]) -> None:
        self.params: dict[str, Any] = {}
        self.taken: list[tuple[int, int]] = []  # the index taken, of how many
        self._path = path

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._take(name, choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        value: int = self._take(name, range(low, high + 1, step))
        return value

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float:
        if step is None or log:
            raise InputError(f"{name}: a grid search can't walk a continuous range.")
        steps = range(round((high - low) / step) + 1)
        value: float = self._take(name, [round(low + step * index, 15) for index in steps])
        return value

    def _take(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self.params:
            depth = len(self.taken)
            index = self._path[depth] if depth < len(self._path) else 0
            self.taken.append((index, len(choices)))
            self.params[name] = choices[index]
        return self.params[name]


def walk(space: Space) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every configuration of a space of choices, each with the parameters that lead to it."""
    path: list[int] | None = []
    while path is not None:
        step = _Step(path)
        yield suggest(space, step), step.params
        path = _following(step.taken)


def _following(taken: list[tuple[int, int]]) -> list[int] | None:
    """The path after this one, counting like an odometer; None after the last."""
    while taken:
        index, of = taken.pop()
        if index + 1 < of:
            return [*(before for before, _ in taken), index + 1]
    return None


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


SEARCHERS: dict[str, Callable[[int, int], Any]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _random,  # a grid's configurations are imposed; nothing is left to sample
}
