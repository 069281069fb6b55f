"""Flips: the questions that one of two results has right, which differ in one factor only.

Two results are a pair if all that decides them is equal but the factor and the knobs that only some
of its values read; of a pair one has the factor's reference. The factor is the quantization, its
reference `none`, unless another one is asked for. Only finished results are compared, on the
questions of the selection split that both answered.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.analysis.knob_levels import level_name, natural_order
from orchestrator.analysis.significance import Comparison, compare
from orchestrator.runs.predictions import PredictionReader, Predictions, Row, shared_ids
from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import MetricSpec
from trainables.spec.quantization import QUANTIZATIONS

QUANTIZATION = "quantization"
UNKNOWN_KIND = "unknown"
Direction = Literal["lost", "gained"]  # by the other level


@dataclass(frozen=True)
class Flip:
    """A question that exactly one trial of a pair has right."""

    id: str
    kind: str
    question: str
    gold: str
    reference_answer: str
    answer: str
    direction: Direction


@dataclass(frozen=True)
class KindCount:
    """The questions of one kind, counted by which trial of a pair has them right."""

    kind: str
    questions: int
    both: int
    lost: int  # right in the reference alone
    gained: int  # right in the other alone

    @property
    def neither(self) -> int:
        return self.questions - self.both - self.lost - self.gained


@dataclass(frozen=True)
class Pair:
    """Two results that differ in one factor only.

    `comparison` is the other result against the reference: its difference is negative if the
    factor's `level` costs right answers. `kinds` are ordered by name.
    """

    reference: TrialResult
    other: TrialResult
    reference_level: str
    level: str
    comparison: Comparison
    kinds: tuple[KindCount, ...]
    flips: tuple[Flip, ...]

    @property
    def is_baseline(self) -> bool:
        return self.reference.is_baseline

    def of(self, direction: Direction) -> list[Flip]:
        return [flip for flip in self.flips if flip.direction == direction]


def pairs(
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    *,
    metric: MetricSpec | None,
    by: str = QUANTIZATION,
) -> list[Pair]:
    """Every pair of finished results that differ in the knob `by`: trained ones first, then
    baselines.

    They are compared on the selection split; those without a question in common are no pair. A
    question is right or wrong by `metric` (`TaskMetrics.verdict`); without one there is no pair.
    """
    if metric is None:
        return []
    finished = [item for item in comparable(results) if level(item, by) is not None]
    reference = _reference(finished, by)
    apart = _apart(finished, by)
    groups: dict[str, list[TrialResult]] = defaultdict(list)
    for item in finished:
        groups[_all_else(item, apart, by)].append(item)
    found = [
        _pair(one, other, predictions, metric, by)
        for items in groups.values()
        for one in items
        for other in items
        if level(one, by) == reference != level(other, by)
    ]
    return sorted((pair for pair in found if pair is not None), key=_place)


def comparable(results: Sequence[TrialResult]) -> list[TrialResult]:
    """The finished trials and baselines."""
    return [item for item in results if item.finished and (item.is_trial or item.is_baseline)]


def level(item: TrialResult, by: str) -> str | None:
    """The result's value of a knob as text, a model by its name; None if it does not read it."""
    if by == QUANTIZATION:
        return quantization_name(item.knobs)
    if by == "model":
        return item.model_name
    default = KNOBS[by].default if KNOBS[by].unsaid else None
    value = item.knobs.get(by, default)
    return None if value is None else level_name(value)


def quantization_knobs() -> frozenset[str]:
    """`quantization`, and the knobs that some quantizations read and others do not."""
    return _read_by_some(QUANTIZATION, QUANTIZATIONS)


def _read_by_some(by: str, values: Iterable[Any]) -> frozenset[str]:
    """The knob `by`, and those that are read under some of its values only."""
    defaults = {name: knob.default for name, knob in KNOBS.items()}
    settings = [defaults | {by: value} for value in values]
    own = {
        name
        for name, knob in KNOBS.items()
        if len({knob.read_by(setting) for setting in settings}) > 1
    }
    return frozenset({by, *own})


def _reference(items: Sequence[TrialResult], by: str) -> str | None:
    """The level that others are compared with: the knob's default, or else the first level."""
    levels = sorted({str(level(item, by)) for item in items}, key=natural_order)
    default = KNOBS[by].default
    name = None if default is None else level_name(default)
    return name if name in levels or by == QUANTIZATION else next(iter(levels), None)


def _apart(items: Sequence[TrialResult], by: str) -> frozenset[str]:
    """The knobs in which a pair may differ; model and prompt are known by their content."""
    if by == QUANTIZATION:
        return quantization_knobs() | {"model", "prompt"}
    values = {level_name(item.knobs[by]): item.knobs[by] for item in items if by in item.knobs}
    return _read_by_some(by, values.values()) | {"model", "prompt"}


def _all_else(item: TrialResult, apart: Collection[str], by: str) -> str:
    """A key of all that decides a result but the knobs `apart`; model and task by content.

    What a task reads of its options is part of its identity, so of such a factor that is left out:
    a run has one task.
    """
    knobs = {name: value for name, value in item.knobs.items() if name not in apart}
    model = "" if by == "model" else item.model_digest or item.knobs.get("model")
    identity = {} if KNOBS[by].of_task else item.task_identity
    prompt = item.knobs.get("prompt") if KNOBS[by].of_task and by != "prompt" else ""
    decides = [item.role, model, identity, item.units, knobs, prompt]
    return json.dumps(decides, sort_keys=True, default=str)


def _pair(
    reference: TrialResult,
    other: TrialResult,
    predictions: PredictionReader,
    metric: MetricSpec,
    by: str,
) -> Pair | None:
    new, old = predictions(other), predictions(reference)
    try:
        comparison = compare(new, old, metric=metric)
    except ValueError:  # no question in common
        return None
    key = metric.per_question_key
    new, old = new.measured(key), old.measured(key)
    common = shared_ids([new.ids, old.ids])
    new, old = new.at(common), old.at(common)
    levels = str(level(reference, by)), str(level(other, by))
    kinds, flips = _kinds(old, new, key), _flips(old, new, key)
    return Pair(reference, other, *levels, comparison, kinds, flips)


def _kinds(old: Predictions, new: Predictions, key: str) -> tuple[KindCount, ...]:
    """Of the same questions in the same order."""
    right_before, right_after = (map(bool, item.column(key)) for item in (old, new))
    counts = Counter(zip(map(_kind, old.column("kind")), right_before, right_after, strict=True))
    return tuple(
        KindCount(
            kind,
            questions=sum(count for found, count in counts.items() if found[0] == kind),
            both=counts[kind, True, True],
            lost=counts[kind, True, False],
            gained=counts[kind, False, True],
        )
        for kind in sorted({kind for kind, _, _ in counts})
    )


def _flips(old: Predictions, new: Predictions, key: str) -> tuple[Flip, ...]:
    before, after = old.column(key), new.column(key)
    return tuple(
        _flip(old.row(place), new.row(place), key)
        for place, (one, other) in enumerate(zip(before, after, strict=True))
        if bool(one) != bool(other)
    )


def _flip(old: Row, new: Row, key: str) -> Flip:
    return Flip(
        id=str(new["id"]),
        kind=_kind(old.get("kind")),
        question=str(new.get("question", "")),
        gold=str(new.get("gold", "")),
        reference_answer=str(old.get("prediction", "")),
        answer=str(new.get("prediction", "")),
        direction="lost" if old[key] else "gained",
    )


def _kind(value: Any) -> str:
    return str(value or UNKNOWN_KIND)


def _place(pair: Pair) -> tuple[bool, str, int, tuple[float, str]]:
    """Quantizations in the order of QUANTIZATIONS; those that only a later version has come last,
    and levels of another factor in theirs."""
    places = {name: place for place, name in enumerate(QUANTIZATIONS)}
    place = places.get(pair.level.removesuffix("+dq"), len(places))
    return pair.is_baseline, pair.reference.trial_id, place, natural_order(pair.level)
