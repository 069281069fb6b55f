"""The slices of questions: properties by which flips are counted apart, as a level per question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.runs.predictions import Predictions
from trainables.tasks.slices import of_text, rare_shares

KEY = "slices"  # of a row of predictions, with what only the worker knows of a question
MOST_LEVELS = 12  # words beyond the commonest ones are counted together
_OTHERS = "others"
Value = str | float | None


def has_slices(predictions: Predictions) -> bool:
    """Whether the worker wrote slices, as earlier versions did not."""
    return any(predictions.column(KEY))


def slice_values(predictions: Predictions) -> dict[str, tuple[Value, ...]]:
    """The value of each property by its name, for each question; None where it is not known.

    `kind` is the row's; `length` (words), `figures` and `rare_words` are of the row's question, and
    rare is what few of these questions have (`rare_shares`); what the worker wrote goes before.
    """
    found: dict[str, list[Value]] = {"kind": [_word(each) for each in predictions.column("kind")]}
    texts = predictions.column("question")
    if texts and all(isinstance(text, str) for text in texts):
        told = list(map(of_text, texts))
        found |= {name: [each[name] for each in told] for name in ("length", "figures")}
        found["rare_words"] = [*rare_shares(texts)]
    written = [each if isinstance(each, Mapping) else {} for each in predictions.column(KEY)]
    for name in dict.fromkeys(name for each in written for name in each):
        found[str(name)] = [_value(each.get(name)) for each in written]
    return {name: tuple(values) for name, values in found.items()}


def slice_levels(values: Sequence[Value]) -> list[str | None]:
    """The level of each value: the word; of numbers the quartile, as '1st quarter: 3..12'.

    Numbers with at most four distinct values are levels themselves. Equal numbers are in one
    quartile, so quartiles may differ in size.
    """
    numbers = [value for value in values if isinstance(value, float)]
    distinct = sorted(set(numbers))
    if len(distinct) <= 4:
        return _commonest([f"{each:g}" if isinstance(each, float) else each for each in values])
    names = _quartiles(sorted(numbers), distinct)
    return [names[value] if isinstance(value, float) else value for value in values]


def level_order(level: str) -> tuple[bool, float, str]:
    """A sort key: numbers by value, then words; the others last."""
    try:
        return False, float(level), level
    except ValueError:
        return level == _OTHERS, float("inf"), level


def _quartiles(ordered: Sequence[float], distinct: Sequence[float]) -> dict[float, str]:
    """The name of each number's quartile: where the middle of those that equal it is."""
    counts, places, before = Counter(ordered), {}, 0
    for value in distinct:
        places[value] = int(4 * (before + counts[value] / 2) / len(ordered))
        before += counts[value]
    within: dict[int, list[float]] = {}
    for value, place in places.items():
        within.setdefault(place, []).append(value)
    orders = ("1st", "2nd", "3rd", "4th")
    names = {
        place: f"{order} quarter: {_range(within[place])}"
        for order, place in zip(orders, sorted(within), strict=False)
    }
    if len(within) < 4:  # so many are equal that they are no quarters
        names = {place: _range(values) for place, values in within.items()}
    return {value: names[place] for value, place in places.items()}


def _range(values: Sequence[float]) -> str:
    low, high = f"{values[0]:.3g}", f"{values[-1]:.3g}"
    return low if low == high else f"{low}..{high}"


def _commonest(levels: Sequence[str | None]) -> list[str | None]:
    counts = Counter(level for level in levels if level is not None)
    if len(counts) <= MOST_LEVELS:
        return list(levels)
    kept = {level for level, _ in counts.most_common(MOST_LEVELS - 1)}
    return [level if level is None or level in kept else _OTHERS for level in levels]


def _value(value: Any) -> Value:
    """A number as a float, anything else as a word."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else _word(value)


def _word(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)
