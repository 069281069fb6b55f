"""Flips: the questions that are right with and wrong without quantization, or the reverse.

Two results are a pair if all that decides them is equal but their quantization and the knobs that
only some quantizations read. Only finished ones are compared, on the questions of the selection
split that both answered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.analysis.significance import Comparison, compare
from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.knobs import KNOBS
from trainables.spec.metric import MetricSpec
from trainables.spec.quantization import QUANTIZATIONS

REFERENCE = "none"
UNKNOWN_KIND = "unknown"
Direction = Literal["lost", "gained"]  # by the quantization
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Flip:
    """One question that exactly one of a pair answers rightly."""

    id: str
    kind: str
    question: str
    gold: str
    reference_answer: str
    answer: str
    direction: Direction


@dataclass(frozen=True)
class KindCount:
    """Of the questions of one kind: how many were asked, and how each of the two fared."""

    kind: str
    questions: int
    both: int
    lost: int  # the reference alone is right
    gained: int  # the quantized one alone is right

    @property
    def neither(self) -> int:
        return self.questions - self.both - self.lost - self.gained


@dataclass(frozen=True)
class Pair:
    """A configuration unquantized (`reference`) and quantized, else equal.

    `comparison` is the quantized one against the reference: its difference is negative where
    quantization costs right answers. `kinds` is in the order of their names.
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
    results: Sequence[TrialResult],
    predictions: Callable[[TrialResult], Sequence[Row]],
    *,
    metric: MetricSpec,
) -> list[Pair]:
    """Every pair of finished results: trained ones first, then baselines.

    `predictions` gives a result's rows on the selection split; results without a question in common
    are no pair. A question is right or wrong by `metric`, a share of questions.
    """
    finished = [item for item in results if item.finished and (item.is_trial or item.is_baseline)]
    references = {
        _all_else(item): item for item in finished if item.knobs.get("quantization") == REFERENCE
    }
    found = []
    for item in finished:
        reference = references.get(_all_else(item))
        if reference is not None and item.knobs.get("quantization") != REFERENCE:
            pair = _pair(reference, item, predictions(reference), predictions(item), metric)
            found += [pair] if pair else []
    return sorted(found, key=_place)


def quantization_knobs() -> frozenset[str]:
    """The quantization, and each knob that some quantizations read and others don't."""
    own = {
        name
        for name, knob in KNOBS.items()
        if len({knob.read_by(_defaults(quantization)) for quantization in QUANTIZATIONS}) > 1
    }
    return frozenset({"quantization", *own})


def _defaults(quantization: str) -> dict[str, Any]:
    return {name: knob.default for name, knob in KNOBS.items()} | {"quantization": quantization}


def _all_else(item: TrialResult) -> str:
    """All that decides a result but its quantization; models and prompts by their content."""
    apart = {*quantization_knobs(), "model", "prompt"}
    knobs = {name: value for name, value in item.knobs.items() if name not in apart}
    model = item.model_digest or item.knobs.get("model")
    decides = [item.role, model, item.task_identity, item.units, knobs]
    return json.dumps(decides, sort_keys=True, default=str)


def _pair(
    reference: TrialResult,
    quantized: TrialResult,
    reference_rows: Sequence[Row],
    rows: Sequence[Row],
    metric: MetricSpec,
) -> Pair | None:
    try:
        comparison = compare(rows, reference_rows, metric=metric)
    except ValueError:  # no question in common
        return None
    key = metric.per_question_key
    before = {str(row["id"]): row for row in reference_rows if row.get(key) is not None}
    both = [
        (before[str(row["id"])], row)
        for row in rows
        if row.get(key) is not None and str(row["id"]) in before
    ]
    flips = [_flip(old, new, key) for old, new in both if bool(old[key]) != bool(new[key])]
    return Pair(reference, quantized, comparison, _kinds(both, key), tuple(flips))


def _kinds(both: Sequence[tuple[Row, Row]], key: str) -> tuple[KindCount, ...]:
    counts = Counter((_kind(old), bool(old[key]), bool(new[key])) for old, new in both)
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


def _flip(old: Row, new: Row, key: str) -> Flip:
    return Flip(
        id=str(new["id"]),
        kind=_kind(old),
        question=str(new.get("question", "")),
        gold=str(new.get("gold", "")),
        reference_answer=str(old.get("prediction", "")),
        answer=str(new.get("prediction", "")),
        direction="lost" if old[key] else "gained",
    )


def _kind(row: Row) -> str:
    return str(row.get("kind") or UNKNOWN_KIND)


def _place(pair: Pair) -> tuple[bool, str, int]:
    order = [*QUANTIZATIONS]
    quantization = str(pair.quantized.knobs["quantization"])
    return pair.is_baseline, pair.reference.trial_id, order.index(quantization)
