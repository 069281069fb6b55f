"""Checks of values that a user gave, for knobs and for the settings of a sweep.

A check returns what is wrong with a value, or None if it accepts the value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any

from trainables.errors import did_you_mean

Check = Callable[[Any], str | None]  # what is wrong with a value, or None


def whole(lowest: int) -> Check:
    """Accepts whole numbers from `lowest` on."""

    def wrong(value: Any) -> str | None:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= lowest
        return None if fits else f"got {value!r}; needs a whole number >= {lowest}."

    return wrong


def above(lowest: float) -> Check:
    """Accepts finite numbers greater than `lowest`."""
    return _number(lambda value: value > lowest, f"> {lowest:g}")


def at_least(lowest: float) -> Check:
    """Accepts finite numbers from `lowest` on."""
    return _number(lambda value: value >= lowest, f">= {lowest:g}")


def within(lowest: float, highest: float) -> Check:
    """Accepts numbers from `lowest` to `highest`, both included."""
    bounds = f">= {lowest:g} and <= {highest:g}"
    return _number(lambda value: lowest <= value <= highest, bounds)


def between(lowest: float, highest: float) -> Check:
    """Accepts numbers greater than `lowest` and less than `highest`."""
    return _number(lambda value: lowest < value < highest, f"> {lowest:g} and < {highest:g}")


def boolean(value: Any) -> str | None:
    """Accepts true and false."""
    return None if isinstance(value, bool) else f"got {value!r}; needs true or false."


def one_of(*allowed: str) -> Check:
    """Accepts the given names."""
    return name_in(allowed)


def name_in(table: Collection[str]) -> Check:
    """Accepts the names that are in `table` when a value is checked."""

    def wrong(value: Any) -> str | None:
        is_name = isinstance(value, str) and value in table
        return None if is_name else f"got {value!r}.{did_you_mean(value, table)}"

    return wrong


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that a float can hold; true and false are not numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def _number(accepts: Callable[[float], bool], bounds: str) -> Check:
    def wrong(value: Any) -> str | None:
        fits = is_finite(value) and accepts(value)
        return None if fits else f"got {value!r}; needs a number {bounds}."

    return wrong
