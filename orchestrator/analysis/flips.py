"""Flips: the questions that are right with and wrong without quantization, or the reverse.

Two results are a pair if all that decides them is equal but their quantization and the knobs that
only some quantizations read. Only finished ones are compared, on the questions of the selection
split that both answered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Literal

from orchestrator.analysis.significance import Comparison, compare
from orchestrator.runs.predictions import PredictionReader, Predictions, Row, shared_ids
from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import MetricSpec
from trainables.spec.quantization import QUANTIZATIONS

REFERENCE = "none"
UNKNOWN_KIND = "unknown"
Direction = Literal["lost", "gained"]  # by the quantization


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
    gained: int  # right in the quantized trial alone

    @property
    def neither(self) -> int:
        return self.questions - self.both - self.lost - self.gained


@dataclass(frozen=True)
class Pair:
    """Two results that differ in quantization only: `reference` has none.

    `comparison` is the quantized result against the reference: its difference is negative if
    quantization costs right answers. `kinds` are ordered by name.
    """

    reference: TrialResult
    quantized: TrialResult
    comparison: Comparison
    kinds: tuple[KindCount, ...]
    flips: tuple[Flip, ...]

    @property
    def is_baseline(self) -> bool:
        return self.reference.is_baseline

    @property
    def quantization(self) -> str:
        return quantization_name(self.quantized.knobs)

    def of(self, direction: Direction) -> list[Flip]:
        return [flip for flip in self.flips if flip.direction == direction]


def pairs(
    results: Sequence[TrialResult], predictions: PredictionReader, *, metric: MetricSpec | None
) -> list[Pair]:
    """Every pair of finished results: trained ones first, then baselines.

    They are compared on the selection split; those without a question in common are no pair. A
    question is right or wrong by `metric` (`TaskMetrics.verdict`); without one there is no pair.
    """
    if metric is None:
        return []
    finished = [item for item in results if item.finished and (item.is_trial or item.is_baseline)]
    apart = {*quantization_knobs(), "model", "prompt"}
    keys = [_all_else(item, apart) for item in finished]
    is_reference = [item.knobs.get("quantization") == REFERENCE for item in finished]
    references = dict(compress(zip(keys, finished, strict=True), is_reference))
    found = [
        _pair(references[key], item, predictions, metric)
        for key, item, is_one in zip(keys, finished, is_reference, strict=True)
        if key in references and not is_one
    ]
    return sorted((pair for pair in found if pair is not None), key=_place)


def quantization_knobs() -> frozenset[str]:
    """`quantization`, and the knobs that some quantizations read and others do not."""
    own = {
        name
        for name, knob in KNOBS.items()
        if len({knob.read_by(_defaults(quantization)) for quantization in QUANTIZATIONS}) > 1
    }
    return frozenset({"quantization", *own})


def _defaults(quantization: str) -> dict[str, Any]:
    return {name: knob.default for name, knob in KNOBS.items()} | {"quantization": quantization}


def _all_else(item: TrialResult, apart: Collection[str]) -> str:
    """A key of all that decides a result except the knobs `apart`; model and task by content."""
    knobs = {name: value for name, value in item.knobs.items() if name not in apart}
    model = item.model_digest or item.knobs.get("model")
    decides = [item.role, model, item.task_identity, item.units, knobs]
    return json.dumps(decides, sort_keys=True, default=str)


def _pair(
    reference: TrialResult,
    quantized: TrialResult,
    predictions: PredictionReader,
    metric: MetricSpec,
) -> Pair | None:
    new, old = predictions(quantized), predictions(reference)
    try:
        comparison = compare(new, old, metric=metric)
    except ValueError:  # no question in common
        return None
    key = metric.per_question_key
    new, old = new.measured(key), old.measured(key)
    common = shared_ids([new.ids, old.ids])
    new, old = new.at(common), old.at(common)
    return Pair(reference, quantized, comparison, _kinds(old, new, key), _flips(old, new, key))


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


def _place(pair: Pair) -> tuple[bool, str, int, str]:
    """In the order of QUANTIZATIONS; those that only a later version has come last."""
    places = {name: place for place, name in enumerate(QUANTIZATIONS)}
    name = str(pair.quantized.knobs["quantization"])
    place = places.get(name, len(places))
    return pair.is_baseline, pair.reference.trial_id, place, name
