"""The study of flips: on which slices of the questions one level of a factor loses right answers.

Each slice of each property is tested: exact McNemar on its questions, Holm over all slices of the
study. Several pairs of the same two levels ask the same questions, so their flips are not
independent; each question counts once: as lost if more of the pairs lost it than gained it, as
gained in the reverse. For one pair that is McNemar's test itself. What is found so holds for other
questions and these trials; it says nothing of other trials of the same levels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.analysis.flips import Pair
from orchestrator.analysis.significance import holm, mcnemar, share_interval
from orchestrator.analysis.slices import Value, has_slices, level_order, slice_levels, slice_values
from orchestrator.runs.predictions import PredictionReader, shared_ids
from trainables.spec.metric import MetricSpec

ALPHA = 0.05


@dataclass(frozen=True)
class SliceCount:
    """The questions of one slice, and those that a level loses or gains against the reference.

    `p_value` is exact McNemar's, adjusted for all slices of the study (of all questions: not
    adjusted). `elsewhere` is the difference on the questions of the property's other slices.
    """

    name: str
    level: str
    asked: int
    lost: int
    gained: int
    p_value: float
    elsewhere: float = 0.0

    @property
    def difference(self) -> float:
        return (self.gained - self.lost) / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Of the difference with 95% confidence, not adjusted."""
        return share_interval(self.gained, self.lost, self.asked)

    @property
    def is_significant(self) -> bool:
        return self.p_value < ALPHA


@dataclass(frozen=True)
class LevelStudy:
    """One level of the factor against its reference, over all pairs of trials of these two."""

    reference_level: str
    level: str
    pairs: int
    whole: SliceCount
    slices: tuple[SliceCount, ...]


@dataclass(frozen=True)
class Study:
    """The levels of a factor; `is_of_baselines` if there are only untrained bases to compare."""

    factor: str
    levels: tuple[LevelStudy, ...]
    is_of_baselines: bool
    has_written_slices: bool

    @property
    def most_different(self) -> list[tuple[LevelStudy, SliceCount]]:
        """Every slice, the most significant first; of equal ones that of the largest difference."""
        found = [(level, each) for level in self.levels for each in level.slices]
        return sorted(found, key=lambda item: (item[1].p_value, -abs(item[1].difference)))


def study(
    found: Sequence[Pair], predictions: PredictionReader, *, metric: MetricSpec, factor: str
) -> Study:
    """The study of pairs that differ in `factor`: of trained ones, or of baselines without any."""
    trained = [pair for pair in found if not pair.is_baseline]
    chosen = trained or list(found)
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in chosen:
        groups.setdefault((pair.reference_level, pair.level), []).append(pair)
    levels = [_level_study(pairs, predictions, metric) for pairs in groups.values()]
    written = any(has_slices(predictions(pair.reference)) for pair in chosen)
    return Study(factor, _adjusted(levels), not trained, written)


def pair_slices(pair: Pair, predictions: PredictionReader) -> dict[str, dict[str, Value]]:
    """The values of each property by question, as the reference's predictions have them."""
    answers = predictions(pair.reference)
    return {
        name: dict(zip(answers.ids, values, strict=True))
        for name, values in slice_values(answers).items()
    }


def _level_study(
    pairs: Sequence[Pair], predictions: PredictionReader, metric: MetricSpec
) -> LevelStudy:
    net: Counter[str] = Counter()
    slices: dict[str, dict[str, Value]] = {}
    for pair in pairs:
        net.update(_net(pair, predictions, metric.per_question_key))
        for name, values in pair_slices(pair, predictions).items():
            slices[name] = values | slices.get(name, {})
    ids = list(net)
    return LevelStudy(
        pairs[0].reference_level,
        pairs[0].level,
        len(pairs),
        _count("all questions", "", ids, net),
        tuple(
            slice_
            for name, values in slices.items()
            for slice_ in _slices(name, slice_levels([values.get(each) for each in ids]), ids, net)
        ),
    )


def _net(pair: Pair, predictions: PredictionReader, key: str) -> dict[str, int]:
    """1 for each question that the pair gained, -1 for one that it lost, else 0."""
    old, new = (predictions(each).measured(key) for each in (pair.reference, pair.other))
    common = shared_ids([old.ids, new.ids])
    before, after = old.at(common).column(key), new.at(common).column(key)
    outcomes = zip(common, before, after, strict=True)
    return {each: bool(later) - bool(earlier) for each, earlier, later in outcomes}


def _slices(
    name: str, levels: Sequence[str | None], ids: Sequence[str], net: Mapping[str, int]
) -> list[SliceCount]:
    """The slices of a property; none if all questions are in one."""
    members: dict[str, list[str]] = {}
    for each, level in zip(ids, levels, strict=True):
        if level is not None:
            members.setdefault(level, []).append(each)
    if len(members) < 2:
        return []
    known = [each for inside in members.values() for each in inside]
    whole = _count(name, "", known, net)
    found = [_count(name, level, members[level], net) for level in sorted(members, key=level_order)]
    return [replace(each, elsewhere=_elsewhere(whole, each)) for each in found]


def _elsewhere(whole: SliceCount, part: SliceCount) -> float:
    gained, lost = whole.gained - part.gained, whole.lost - part.lost
    return (gained - lost) / (whole.asked - part.asked)


def _count(name: str, level: str, ids: Sequence[str], net: Mapping[str, int]) -> SliceCount:
    lost, gained = (sum(sign * net[each] > 0 for each in ids) for sign in (-1, 1))
    return SliceCount(name, level, len(ids), lost, gained, float(mcnemar(gained, lost)))


def _adjusted(levels: Sequence[LevelStudy]) -> tuple[LevelStudy, ...]:
    """The same with p-values adjusted for the number of all slices (Holm)."""
    adjusted = iter(holm([each.p_value for level in levels for each in level.slices]))
    return tuple(
        replace(
            level,
            slices=tuple(replace(each, p_value=next(adjusted)) for each in level.slices),
        )
        for level in levels
    )
