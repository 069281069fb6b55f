"""Fitting: what this start's hardware can hold, learnt from the trials that ran on it.

Two things are learnt. What needs at least as much memory as something that did not fit is ruled
out (memory_order.py). For the rest there are odds: each small set of knobs that might decide it
is a table of how often its cells fitted, and the tables that have foretold best speak loudest
(Bayesian model averaging over Beta-Bernoulli tables). Odds only change the order in which
configurations get their turn.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from orchestrator.search.memory_order import Knobs, MemoryDemand, depends_on

FREE_REFUSALS = 10  # from then on a share of the launches may be risked
RISKED_SHARE = 0.15
RISKED_AHEAD = 5  # launches whose share may be risked before they were made
_LARGEST_SET = 3  # knobs whose interaction decides
_PRIOR = 0.25  # of the Beta distributions: a cell mostly always fits or never does
_NEARLY_SURE = 0.97
_DISTRUSTED_FROM = 0.1  # share of refusals that a larger configuration's success contradicts


@dataclass
class _Verdict:
    """Whether a trial fitted, and for one that did not whether a larger one did."""

    need: MemoryDemand
    fits: bool
    contradicted: bool = False


class FeasibilityModel:
    """Verdicts of one start by trial, and what follows from them for other configurations.

    `varied` names the knobs that differ between the configurations of the space.
    """

    def __init__(self, varied: Iterable[str]) -> None:
        self._tables = _BetaBernoulliTables(sorted(filter(depends_on, set(varied))))
        self._alike: dict[Any, dict[str, _Verdict]] = defaultdict(dict)  # by kind of need
        self._risks: dict[str, float] = {}  # of the launches since there is a budget for them
        self._predicted: dict[Any, dict[str, MemoryDemand]] = defaultdict(dict)  # not to fit
        self._refusals = self._contradicted = 0

    def launched(self, trial_id: str, knobs: Knobs) -> None:
        """A trial starts: until its verdict, the odds against it count as spent."""
        if self._refusals >= FREE_REFUSALS:
            self._risks[trial_id] = 1 - self.fit_probability(knobs)

    def learn(self, trial_id: str, knobs: Knobs, *, fits: bool) -> None:
        """A trial ran, or did not fit. The last word on a trial counts."""
        need = MemoryDemand.of(knobs)
        alike = self._alike[need.kind]
        before = alike.get(trial_id)
        if before is not None and before.fits == fits:
            return
        if before is not None:
            self._tables.forget(knobs, fits=before.fits)
        self._tables.add(knobs, fits=fits)
        alike[trial_id] = _Verdict(need, fits)
        self._look_for_contradictions(alike.values())
        if trial_id in self._risks:
            self._risks[trial_id] = 0.0 if fits else 1.0

    def foretold(self, trial_id: str, knobs: Knobs) -> None:
        """A trial is predicted not to fit; it has not run."""
        need = MemoryDemand.of(knobs)
        self._predicted[need.kind][trial_id] = need

    def drop_predicted(self) -> None:
        """What was predicted not to fit is predicted anew."""
        self._predicted.clear()

    def rules_out(self, knobs: Knobs, *, foretold: bool = True) -> str | None:
        """A trial that did not fit and that needs no more memory than this would; None: none.

        `foretold`: one that is predicted not to fit will do.
        A refusal that a larger configuration's success contradicts rules nothing out, and where
        there are many of those, memory does not follow the order here and none does.
        """
        if self._is_order_distrusted:
            return None
        need = MemoryDemand.of(knobs)
        for trial_id, told in self._alike.get(need.kind, {}).items():
            if not (told.fits or told.contradicted) and need.is_at_least(told.need):
                return trial_id
        predicted = self._predicted.get(need.kind, {}) if foretold else {}
        return next((name for name, less in predicted.items() if need.is_at_least(less)), None)

    def fit_probability(self, knobs: Knobs) -> float:
        """The predicted chance to fit, between 0 and 1."""
        need = MemoryDemand.of(knobs)
        alike = self._alike.get(need.kind, {}).values()
        larger_ran = any(told.fits and told.need.is_at_least(need) for told in alike)
        if larger_ran and not self._is_order_distrusted:
            return _NEARLY_SURE
        return self._tables.fit_probability(knobs)

    def is_worth_trying(self, fit_probability: float) -> bool:
        """Whether the risk is within the share of launches that may be risked."""
        if self._refusals < FREE_REFUSALS:
            return True
        spent = sum(self._risks.values()) + (1 - fit_probability)
        return spent <= RISKED_SHARE * (len(self._risks) + RISKED_AHEAD)

    @property
    def _is_order_distrusted(self) -> bool:
        return self._contradicted > _DISTRUSTED_FROM * self._refusals

    def _look_for_contradictions(self, alike: Iterable[_Verdict]) -> None:
        ran = [told.need for told in alike if told.fits]
        for told in alike:
            larger_ran = any(need.is_at_least(told.need) for need in ran)
            told.contradicted = larger_ran and not told.fits
        everything = [told for group in self._alike.values() for told in group.values()]
        self._refusals = sum(not told.fits for told in everything)
        self._contradicted = sum(told.contradicted for told in everything)


class _BetaBernoulliTables:
    """One table of verdicts for each set of up to three knobs, and one for all of them."""

    def __init__(self, names: list[str]) -> None:
        sizes = [*range(min(_LARGEST_SET, len(names)) + 1), len(names)]
        sets = {chosen for size in sizes for chosen in combinations(names, size)}
        self._sets = sorted(sets)
        self._prior = {one: -math.log(math.comb(len(names), len(one))) for one in sets}
        self._evidence = dict.fromkeys(sets, 0.0)  # log of how well it foretold, so far
        self._cells: dict[tuple[str, ...], dict[Any, list[int]]] = {
            one: defaultdict(lambda: [0, 0]) for one in sets
        }

    def add(self, knobs: Mapping[str, Any], *, fits: bool) -> None:
        self._count(knobs, fits=fits, by=1)

    def forget(self, knobs: Mapping[str, Any], *, fits: bool) -> None:
        self._count(knobs, fits=fits, by=-1)

    def fit_probability(self, knobs: Mapping[str, Any]) -> float:
        levels = _levels(knobs)
        log_weights = [self._evidence[one] + self._prior[one] for one in self._sets]
        highest = max(log_weights)
        weights = [math.exp(weight - highest) for weight in log_weights]
        told = [self._foretold(one, levels) for one in self._sets]
        return sum(w * p for w, p in zip(weights, told, strict=True)) / sum(weights)

    def _count(self, knobs: Mapping[str, Any], *, fits: bool, by: int) -> None:
        """Verdicts are exchangeable, so one is taken back as if it had been the last."""
        levels = _levels(knobs)
        for one in self._sets:
            cell = self._cells[one][_at(levels, one)]
            if by < 0:
                cell[fits] += by
            fit_probability = self._foretold(one, levels)
            self._evidence[one] += by * math.log(fit_probability if fits else 1 - fit_probability)
            if by > 0:
                cell[fits] += by

    def _foretold(self, one: tuple[str, ...], levels: Mapping[str, Any]) -> float:
        refused, fitted = self._cells[one].get(_at(levels, one), (0, 0))
        return (fitted + _PRIOR) / (fitted + refused + 2 * _PRIOR)


def _at(levels: Mapping[str, Any], one: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(levels.get(name) for name in one)


def _levels(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by half octaves, so that neighbours in a range share a cell."""
    return {name: _level(value) for name, value in knobs.items()}


def _level(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return repr(value)
    return round(2 * math.log2(value)) if value > 0 else "none"
