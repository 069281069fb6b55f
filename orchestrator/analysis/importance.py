"""Which knobs mattered: differences between a knob's levels, adjusted for the other knobs.

Each knob that varies is turned into levels: its values, or thirds (halves if there are few trials)
of the range of a number with more than three values. A linear model of main effects over the trials
gives each difference between two levels with the other knobs held equal. Intervals are t intervals
on the wider of the pooled and the HC3 variance, which holds if the noise differs between trials and
there are few trials (MacKinnon and White 1985; Long and Ervin 2000), at 95% shared among a knob's
pairs (Bonferroni). An interval that includes zero is 'no difference found'. With too few trials to
hold the other knobs equal, the unadjusted means of the levels are compared, and the effect says so.
Interactions are not modelled.

In simulated sweeps of 8 to 40 trials with seven knobs, none of which mattered, at most 5% of a
knob's verdicts were 'matters' (tests/orchestrator/analysis/test_importance.py). A percentile
bootstrap over trials is no alternative: resamples of a dozen trials often hold one level only.

Trials are compared at the same fraction of the budget. At the first rung every trial still runs, so
nothing is censored; at the end only the trials that the scheduler did not stop are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from orchestrator.analysis.knob_levels import level_name, levels_of, natural_order
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import MetricSpec

FEWEST_TRIALS = 6
FREEDOM_SHARE = 0.5  # of the trials that adjusting must leave as degrees of freedom
FEWEST_PER_LEVEL = 2
CONFIDENCE = 0.95
SMALLEST = 1e-9  # half width of an interval; less is rounding
NO_DIFFERENCE = "no difference found"


@dataclass(frozen=True)
class Effect:
    """The mean at `high_level` less the mean at `low_level` of a knob, with its interval."""

    knob: str
    low_level: str
    high_level: str
    difference: float
    low: float
    high: float
    trials: int  # at the two levels
    adjusted: bool  # for the other knobs; False if there were too few trials

    @property
    def found(self) -> bool:
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        return "matters" if self.found else NO_DIFFERENCE


@dataclass(frozen=True)
class Importance:
    """The effects at one fraction of the budget, of `trials` of `started` trials.

    `effects` has one or more per knob, the largest first; `notes` say which knobs have none, and
    why.
    """

    metric: MetricSpec
    fraction: float
    trials: int
    started: int
    effects: tuple[Effect, ...]
    notes: tuple[str, ...] = ()

    @property
    def censored(self) -> bool:
        """Whether some of the trials that started are missing."""
        return self.trials < self.started


def importance(results: Sequence[TrialResult], *, metric: MetricSpec) -> list[Importance]:
    """The effects at the first rung that was reached and at the full budget."""
    started = [item for item in results if item.is_trial and (item.history or item.metrics)]
    found = []
    for fraction in _fractions(started):
        values = {item.trial_id: _value(item, fraction, metric.name) for item in started}
        seen = [item for item in started if values[item.trial_id] is not None]
        targets = [value for value in values.values() if value is not None]
        effects, notes = _effects(seen, targets)
        found.append(Importance(metric, fraction, len(seen), len(started), effects, notes))
    return found


def knob_verdicts(effects: Sequence[Effect]) -> Mapping[str, bool]:
    """For each knob whether any of its differences is significant."""
    return {
        knob: any(e.found for e in effects if e.knob == knob)
        for knob in dict.fromkeys(e.knob for e in effects)
    }


def _fractions(results: Sequence[TrialResult]) -> list[float]:
    reached = {event.fraction for item in results for event in item.history if event.kind == "rung"}
    if any(item.finished for item in results):
        reached.add(1.0)
    return sorted({min(reached), 1.0} & reached) if reached else []


def _value(result: TrialResult, fraction: float, metric: str) -> float | None:
    """The metric at a fraction; at the full budget that of the final, complete evaluation."""
    if fraction == 1.0:
        return result.metrics.get(metric) if result.finished else None
    at = [event for event in result.history if event.kind == "rung" and event.fraction == fraction]
    value = at[-1].metrics.get(metric) if at else None
    return None if value is None else float(value)


def _effects(
    results: Sequence[TrialResult], targets: Sequence[float]
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    if len(results) < FEWEST_TRIALS:
        return (), (f"too few trials ({len(results)}; needs {FEWEST_TRIALS}) to say what mattered",)
    effects: list[Effect] = []
    notes: list[str] = []
    for knob in _varying(results):
        having = [place for place, item in enumerate(results) if knob in item.knobs]
        group, values = [results[place] for place in having], [targets[place] for place in having]
        pairs = _effects_of(knob, group, values)
        effects += pairs
        if not pairs:
            notes.append(f"{knob}: too few trials per level")
    return tuple(sorted(effects, key=lambda item: -abs(item.difference))), tuple(notes)


def _varying(results: Sequence[TrialResult]) -> list[str]:
    names = {name for item in results for name in item.knobs}
    order = [*KNOBS, *sorted(names.difference(KNOBS))]
    return [
        name
        for name in order
        if len({level_name(i.knobs[name]) for i in results if name in i.knobs}) > 1
    ]


def _effects_of(
    knob: str, results: Sequence[TrialResult], targets: Sequence[float]
) -> list[Effect]:
    """The pairs with the default level if that is a string, else the pair that differs most."""
    own = levels_of([item.knobs[knob] for item in results])
    columns = _design(knob, own, results)
    usable = [level for level in dict.fromkeys(own) if own.count(level) >= FEWEST_PER_LEVEL]
    usable = sorted(usable, key=natural_order)
    default = level_name(KNOBS[knob].default) if knob in KNOBS else ""
    if default in usable and isinstance(KNOBS[knob].default, str):
        pairs = [(default, level) for level in usable if level != default]
    else:
        pairs = list(combinations(usable, 2))
    found = [
        _effect(knob, pair, own, others=columns, targets=targets, pairs=len(pairs))
        for pair in pairs
    ]
    if pairs and pairs[0][0] != default:
        return sorted(found, key=lambda item: (not item.found, -abs(item.difference)))[:1]
    return found


def _design(knob: str, own: list[str], results: Sequence[TrialResult]) -> list[list[float]] | None:
    """Indicator columns of the other knobs' levels, or None if there are too few trials."""
    others: list[list[float]] = []
    for name in _varying(results):
        if name == knob or any(name not in item.knobs for item in results):
            continue
        levels = levels_of([item.knobs[name] for item in results])
        others += _indicators(levels)[1:]
    freedom = len(results) - len(set(own)) - len(others)
    if freedom < FREEDOM_SHARE * len(results) or not _independent([*_indicators(own), *others]):
        return None
    return others


def _indicators(levels: Sequence[str]) -> list[list[float]]:
    return [
        [float(at == level) for at in levels] for level in sorted(set(levels), key=natural_order)
    ]


def _independent(columns: Sequence[Sequence[float]]) -> bool:
    import numpy

    return int(numpy.linalg.matrix_rank(numpy.array(columns))) == len(columns)


def _effect(
    knob: str,
    pair: tuple[str, str],
    own: Sequence[str],
    *,
    others: list[list[float]] | None,
    targets: Sequence[float],
    pairs: int,
) -> Effect:
    levels = sorted(set(own), key=natural_order)
    columns = [*_indicators(own), *(others or [])]
    contrast = [0.0] * len(columns)
    contrast[levels.index(pair[0])], contrast[levels.index(pair[1])] = -1.0, 1.0
    difference, low, high = _contrast(
        columns, targets, contrast, confidence=1 - (1 - CONFIDENCE) / pairs
    )
    count = own.count(pair[0]) + own.count(pair[1])
    return Effect(knob, *pair, difference, low, high, count, others is not None)


def _contrast(
    columns: Sequence[Sequence[float]],
    targets: Sequence[float],
    contrast: Sequence[float],
    *,
    confidence: float,
) -> tuple[float, float, float]:
    """A contrast of least-squares coefficients and its t interval (see the module)."""
    import numpy
    from scipy.special import stdtrit  # scipy.stats takes 0.4 s to import

    design, target = numpy.array(columns).T, numpy.array(targets)  # (trials, columns), (trials,)
    inverse = numpy.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ target
    leverage = numpy.einsum("ij,jk,ik->i", design, inverse, design)
    residuals = (target - design @ coefficients) / numpy.maximum(1e-9, 1 - leverage)
    weights = numpy.array(contrast) @ inverse @ design.T
    difference = float(numpy.array(contrast) @ coefficients)
    freedom = len(targets) - len(columns)
    pooled = ((target - design @ coefficients) ** 2).sum() / freedom * (weights**2).sum()
    half = float(numpy.sqrt(max(pooled, ((weights * residuals) ** 2).sum())))
    half = max(SMALLEST, half * float(stdtrit(freedom, (1 + confidence) / 2)))
    return difference, difference - half, difference + half
