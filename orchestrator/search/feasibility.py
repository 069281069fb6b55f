"""FeasibilityModel: which configurations fit in this hardware's memory, learnt during a start.

A configuration that needs at least as much memory as one that did not fit is ruled out
(`orchestrator.search.memory_order`). For every other one a probability is estimated: each small
set of knobs has a table that counts how often each combination of its values fitted, and the
probability is the average over these tables, weighted by how well each predicted past trials
(Bayesian model averaging over Beta-Bernoulli tables). The probability only changes the order in
which configurations are launched.
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
RISKED_AHEAD = 5  # future launches whose share may be risked already
_LARGEST_SET = 3  # knobs whose interaction decides
_PRIOR = 0.25  # of the Beta distributions: most cells either always fit or never do
_NEARLY_SURE = 0.97
_DISTRUSTED_FROM = 0.1  # share of misfits contradicted by a larger configuration that fitted


@dataclass
class _Verdict:
    """Whether a trial fitted, and for one that did not whether a larger one did."""

    need: MemoryDemand
    fits: bool
    contradicted: bool = False


class FeasibilityModel:
    """Verdicts of one start, by trial, and what they imply for other configurations.

    `varied` names the knobs that differ between the configurations of the space.
    """

    def __init__(self, varied: Iterable[str]) -> None:
        self._tables = _BetaBernoulliTables(sorted(filter(depends_on, set(varied))))
        self._alike: dict[Any, dict[str, _Verdict]] = defaultdict(dict)  # by kind of need
        self._risks: dict[str, float] = {}  # of the launches since there is a budget for them
        self._predicted: dict[Any, dict[str, MemoryDemand]] = defaultdict(dict)  # not to fit
        self._refusals = self._contradicted = 0

    def launched(self, trial_id: str, knobs: Knobs) -> None:
        """A trial starts. Until its verdict the probability that it does not fit counts as risk."""
        if self._refusals >= FREE_REFUSALS:
            self._risks[trial_id] = 1 - self.fit_probability(knobs)

    def update(self, trial_id: str, knobs: Knobs, *, fits: bool) -> None:
        """Records whether a trial fitted; replaces an earlier verdict on the same trial."""
        need = MemoryDemand.of(knobs)
        alike = self._alike[need.kind]
        before = alike.get(trial_id)
        if before is not None and before.fits == fits:
            return
        if before is not None:
            self._tables.forget(knobs, fits=before.fits)
        self._tables.add(knobs, fits=fits)
        alike[trial_id] = _Verdict(need, fits)
        self._count_contradictions(alike.values())
        if trial_id in self._risks:
            self._risks[trial_id] = 0.0 if fits else 1.0

    def add_predicted_misfit(self, trial_id: str, knobs: Knobs) -> None:
        """Records a trial that is predicted not to fit and has not run."""
        need = MemoryDemand.of(knobs)
        self._predicted[need.kind][trial_id] = need

    def drop_predicted(self) -> None:
        """Forgets the predicted misfits, which are then predicted again."""
        self._predicted.clear()

    def rules_out(self, knobs: Knobs, *, include_predicted: bool = True) -> str | None:
        """Returns the id of a trial that did not fit and needs no more memory, or None.

        `include_predicted`: trials that are predicted not to fit count too. A misfit that is
        contradicted by a larger configuration that fitted rules nothing out; where many are
        contradicted, the order of memory does not hold on this hardware and nothing is ruled out.
        """
        if self._is_order_distrusted:
            return None
        need = MemoryDemand.of(knobs)
        for trial_id, verdict in self._alike.get(need.kind, {}).items():
            if not (verdict.fits or verdict.contradicted) and need.is_at_least(verdict.need):
                return trial_id
        predicted = self._predicted.get(need.kind, {}) if include_predicted else {}
        return next((name for name, less in predicted.items() if need.is_at_least(less)), None)

    def fit_probability(self, knobs: Knobs) -> float:
        """The estimated probability that the configuration fits, between 0 and 1."""
        need = MemoryDemand.of(knobs)
        alike = self._alike.get(need.kind, {}).values()
        larger_ran = any(verdict.fits and verdict.need.is_at_least(need) for verdict in alike)
        if larger_ran and not self._is_order_distrusted:
            return _NEARLY_SURE
        return self._tables.fit_probability(knobs)

    def is_worth_trying(self, fit_probability: float) -> bool:
        """Whether a launch keeps the expected misfits within the share that may be risked."""
        if self._refusals < FREE_REFUSALS:
            return True
        spent = sum(self._risks.values()) + (1 - fit_probability)
        return spent <= RISKED_SHARE * (len(self._risks) + RISKED_AHEAD)

    @property
    def _is_order_distrusted(self) -> bool:
        return self._contradicted > _DISTRUSTED_FROM * self._refusals

    def _count_contradictions(self, alike: Iterable[_Verdict]) -> None:
        ran = [verdict.need for verdict in alike if verdict.fits]
        for verdict in alike:
            larger_ran = any(need.is_at_least(verdict.need) for need in ran)
            verdict.contradicted = larger_ran and not verdict.fits
        everything = [verdict for group in self._alike.values() for verdict in group.values()]
        self._refusals = sum(not verdict.fits for verdict in everything)
        self._contradicted = sum(verdict.contradicted for verdict in everything)


class _BetaBernoulliTables:
    """One table of verdicts for each set of up to three knobs, and one for all of them."""

    def __init__(self, names: list[str]) -> None:
        sizes = [*range(min(_LARGEST_SET, len(names)) + 1), len(names)]
        sets = {chosen for size in sizes for chosen in combinations(names, size)}
        self._sets = sorted(sets)
        self._prior = {
            knob_set: -math.log(math.comb(len(names), len(knob_set))) for knob_set in sets
        }
        self._evidence = dict.fromkeys(sets, 0.0)  # log-likelihood of the verdicts so far
        self._cells: dict[tuple[str, ...], dict[Any, list[int]]] = {
            knob_set: defaultdict(lambda: [0, 0]) for knob_set in sets
        }

    def add(self, knobs: Mapping[str, Any], *, fits: bool) -> None:
        self._count(knobs, fits=fits, by=1)

    def forget(self, knobs: Mapping[str, Any], *, fits: bool) -> None:
        self._count(knobs, fits=fits, by=-1)

    def fit_probability(self, knobs: Mapping[str, Any]) -> float:
        levels = _levels(knobs)
        log_weights = [self._evidence[knob_set] + self._prior[knob_set] for knob_set in self._sets]
        highest = max(log_weights)
        weights = [math.exp(weight - highest) for weight in log_weights]
        verdict = [self._expected_fit(knob_set, levels) for knob_set in self._sets]
        return sum(w * p for w, p in zip(weights, verdict, strict=True)) / sum(weights)

    def _count(self, knobs: Mapping[str, Any], *, fits: bool, by: int) -> None:
        """Verdicts are exchangeable, so one is removed as if it had been the last."""
        levels = _levels(knobs)
        for knob_set in self._sets:
            cell = self._cells[knob_set][_at(levels, knob_set)]
            if by < 0:
                cell[fits] += by
            fit_probability = self._expected_fit(knob_set, levels)
            self._evidence[knob_set] += by * math.log(
                fit_probability if fits else 1 - fit_probability
            )
            if by > 0:
                cell[fits] += by

    def _expected_fit(self, knob_set: tuple[str, ...], levels: Mapping[str, Any]) -> float:
        refused, fitted = self._cells[knob_set].get(_at(levels, knob_set), (0, 0))
        return (fitted + _PRIOR) / (fitted + refused + 2 * _PRIOR)


def _at(levels: Mapping[str, Any], knob_set: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(levels.get(name) for name in knob_set)


def _levels(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers are binned by half octaves, so that neighbours in a range share a cell."""
    return {name: _level(value) for name, value in knobs.items()}


def _level(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return repr(value)
    return round(2 * math.log2(value)) if value > 0 else "none"
