"""Search: which configuration to try next, suggested by Optuna or listed in an order.

The study lives in memory and is rebuilt from the trial directories at each start: a finished
trial is COMPLETE with its value, one that was stopped early is PRUNED with all its intermediate
values, and one that can't run is PRUNED with none, which samplers take for the worst there is.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config.objectives import objectives_of
from orchestrator.config.sections import SweepConfig
from orchestrator.search.samplers import ORDERS, SEARCHERS
from orchestrator.space.constraints import count
from orchestrator.space.enumeration import grid_configurations
from orchestrator.space.partial import Given, complete, has, parameters_of
from orchestrator.space.rules import excluded
from orchestrator.space.sampling import random_configuration, suggest
from orchestrator.space.tree import Sample

if TYPE_CHECKING:
    import optuna

Outcome = Literal["complete", "pruned", "worst", "failed"]
TRIAL_ID = "trial_id"  # the attribute by which a study's trial is found in the run folder
_ASKS_BEFORE_FALLING_BACK = 64
_ASKS_FOR_THE_REST = 20  # of a configuration that is given in part
_MOST_SAMPLES = 3_000  # from a space that has no end, to find one that is not known
_MOST_ENUMERATED = 20_000  # from a space of more configurations is drawn only


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, with the study's own trial behind it."""

    configuration: Mapping[str, Any]
    trial: optuna.trial.Trial
    is_given: bool = False  # by `search.start_with`
    reported: set[int] = field(default_factory=set)  # units at which a value is known

    @property
    def suggestion(self) -> dict[str, Any]:
        return dict(self.trial.params)


class Search:
    """Proposes configurations of a space, each admissible by its exclusions.

    Those of `search.start_with` come first. With several objectives there are no intermediate
    values: Optuna has none there.
    """

    def __init__(self, config: SweepConfig, *, known_trials: int = 0) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        # A resumed study has the old results; the same seed would only ask for the same again.
        seed = config.search.seed + known_trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = SEARCHERS[config.search.algorithm](seed, config.search.trials)
        directions = [objective.direction for objective in objectives_of(config)]
        self.study = optuna.create_study(directions=directions, sampler=sampler)
        self._random = random.Random(seed)
        self._given: list[Given] = list(config.search.start_with)
        order = ORDERS.get(config.search.algorithm)
        self._order = order(config) if order else None

    @cached_property
    def size(self) -> int | None:
        """How many configurations the space has after exclusions; None where ranges are in it."""
        return count(self._config.space, self._config.exclude)

    @property
    def is_endless(self) -> bool:
        """Whether there are too many configurations to enumerate them."""
        return self.size is None or self.size > _MOST_ENUMERATED

    @property
    def is_ordered(self) -> bool:
        """Whether its proposals and their order are fixed from the start."""
        return self._order is not None

    def propose(self) -> Proposal | None:
        """Returns the next configuration, or None if none is left or none admissible was found."""
        if self._given:
            return self._next_given(self._given.pop(0))
        if self._order is not None:
            return self._next_in_order()
        for _ in range(_ASKS_BEFORE_FALLING_BACK):
            proposal = self._ask()
            if not excluded(proposal.configuration, self._config.exclude):
                return proposal
            self.tell(proposal, "worst")
        return None

    def unseen(self, seen: Callable[[Mapping[str, Any]], bool]) -> Iterator[Sample]:
        """Yields admissible configurations that are not `seen`, for a sampler without new ones.

        A space of choices is gone through to its end, in a random order; from one that is endless
        a bounded number is sampled. `impose` makes a sample a proposal.
        """
        for configuration, suggestion in self._samples():
            if not seen(configuration):
                yield configuration, suggestion

    def impose(self, suggestion: Mapping[str, Any]) -> Proposal:
        """The study's trial for a configuration that it did not suggest itself."""
        self.study.enqueue_trial(dict(suggestion))
        return self._ask()

    def replay(self, suggestion: Mapping[str, Any]) -> Proposal:
        """As `impose`, for a trial of an earlier start; a configuration of `start_with` that it is
        an instance of is not proposed again."""
        proposal = self.impose(suggestion)
        for place, given in enumerate(self._given):
            if has(proposal.configuration, given):
                del self._given[place]
                break
        return proposal

    def launched(self, proposal: Proposal, trial_id: str) -> None:
        """A proposal became a trial of the sweep."""
        proposal.trial.set_user_attr(TRIAL_ID, trial_id)

    def report(self, proposal: Proposal, *, units: int, value: float) -> None:
        """An intermediate value of a running trial, at a rung; the first one at a rung stays."""
        if units not in proposal.reported and len(self._config.objectives) == 1:
            proposal.reported.add(units)
            proposal.trial.report(value, step=units)

    def tell(
        self, proposal: Proposal, outcome: Outcome, value: float | Sequence[float] | None = None
    ) -> None:
        """How a proposal ended; `value`, one number per objective, goes with 'complete'."""
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "worst": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        self.study.tell(proposal.trial, value, state=states[outcome])

    def database(self, name: str) -> bytes:
        """The study of this sweep's trials as an SQLite file for other programs."""
        from orchestrator.search.study_export import study_database

        return study_database(self.study, name=name, having=TRIAL_ID)

    def _ask(self, *, is_given: bool = False) -> Proposal:
        trial = self.study.ask()
        return Proposal(suggest(self._config.space, trial), trial, is_given)

    def _next_given(self, given: Given) -> Proposal:
        """The sampler chooses what `given` leaves open, or the defaults if it finds nothing
        admissible."""
        space, rules = self._config.space, self._config.exclude
        for _ in range(0 if self.is_ordered else _ASKS_FOR_THE_REST):
            self.study.enqueue_trial(parameters_of(space, given))
            proposal = self._ask(is_given=True)
            if has(proposal.configuration, given) and not excluded(proposal.configuration, rules):
                return proposal
            self.tell(proposal, "failed")
        _, suggestion = complete(space, rules, given, "search.start_with")
        self.study.enqueue_trial(suggestion)
        return self._ask(is_given=True)

    def _next_in_order(self) -> Proposal | None:
        assert self._order is not None
        _, suggestion = next(self._order, (None, None))
        return None if suggestion is None else self.impose(suggestion)

    def _samples(self) -> Iterator[Sample]:
        space = self._config.space
        if not self.is_endless:
            everything = list(self._everything)
            self._random.shuffle(everything)
            yield from everything
            return
        for _ in range(_MOST_SAMPLES):
            found = random_configuration(space, self._random, self._config.exclude)
            if found is not None:
                yield found

    @cached_property
    def _everything(self) -> list[Sample]:
        return list(grid_configurations(self._config.space, self._config.exclude))
