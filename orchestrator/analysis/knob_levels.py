"""A knob's values as a few levels that can be compared. LIGHT."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

THIRDS_FROM = 18  # values; fewer are split in halves


def levels_of(values: Sequence[Any]) -> list[str]:
    """A level per value: itself, or the third of the numbers that it falls in.

    Only numbers with more than three distinct values are binned; halves, below 18 of them. A word
    among numbers (`auto`) is a level of its own.
    """
    numbers = [value for value in values if _is_number(value)]
    distinct = sorted(set(numbers))
    if len(distinct) <= 3:
        return [level_name(value) for value in values]
    bins = 3 if len(numbers) >= THIRDS_FROM else 2
    binned = iter(_binned(numbers, distinct, bins))
    return [next(binned) if _is_number(value) else level_name(value) for value in values]


def level_name(value: Any) -> str:
    """How a knob's value is written."""
    if isinstance(value, str):
        return value.rstrip("/")
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def natural_order(level: str) -> tuple[float, str]:
    """Numbers in their order, then words."""
    try:
        return float(level.split("..", maxsplit=1)[0]), level
    except ValueError:
        return float("inf"), level


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _binned(values: Sequence[float], distinct: Sequence[float], bins: int) -> list[str]:
    """Equal values stay together; bins hold about as many trials each."""
    ordered = sorted(values)
    cuts = [ordered[round(len(ordered) * part / bins)] for part in range(1, bins)]
    places = [sum(value >= cut for cut in cuts) for value in values]
    names = {}
    for place in set(places):
        inside = sorted(value for value, at in zip(values, places, strict=True) if at == place)
        low, high = f"{inside[0]:.3g}", f"{inside[-1]:.3g}"
        names[place] = low if low == high else f"{low}..{high}"
    return [names[place] for place in places]
