"""A knob's values as a few levels that can be compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

THIRDS_FROM = 18  # numbers; fewer are split into halves


def levels_of(values: Sequence[Any]) -> list[str]:
    """The level of each value: the value itself, or the third of the numbers that it falls into.

    Numbers are binned if they have more than three distinct values, into halves if there are fewer
    than THIRDS_FROM. A string among numbers (`auto`) is a level of its own.
    """
    numbers = [value for value in values if _is_number(value)]
    distinct = sorted(set(numbers))
    if len(distinct) <= 3:
        return [level_name(value) for value in values]
    bins = 3 if len(numbers) >= THIRDS_FROM else 2
    binned = iter(_binned(numbers, distinct, bins))
    return [next(binned) if _is_number(value) else level_name(value) for value in values]


def level_name(value: Any) -> str:
    """A knob's value as text."""
    if isinstance(value, str):
        return value.rstrip("/")
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def natural_order(level: str) -> tuple[float, str]:
    """A sort key: numbers by value, then strings."""
    try:
        return float(level.split("..", maxsplit=1)[0]), level
    except ValueError:
        return float("inf"), level


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _binned(values: Sequence[float], distinct: Sequence[float], bins: int) -> list[str]:
    """The bin of each value; equal values share one, and bins are of about equal size."""
    ordered = sorted(values)
    cuts = [ordered[round(len(ordered) * part / bins)] for part in range(1, bins)]
    places = [sum(value >= cut for cut in cuts) for value in values]
    names = {}
    for place in set(places):
        inside = sorted(value for value, at in zip(values, places, strict=True) if at == place)
        low, high = f"{inside[0]:.3g}", f"{inside[-1]:.3g}"
        names[place] = low if low == high else f"{low}..{high}"
    return [names[place] for place in places]
