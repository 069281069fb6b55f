"""Checks: what is wrong with a value that a user gave, in words. LIGHT.

A check returns None for a value that it accepts. Knobs and the settings of a sweep share them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """Accepts the names given."""

    def wrong(value: Any) -> str | None:
        return None if value in allowed else f"got {value!r}.{did_you_mean(value, allowed)}"

    return wrong


def is_finite(value: Any) -> bool:
    """Whether it is a finite number; true and false are none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _number(accepts: Callable[[float], bool], bounds: str) -> Check:
    def wrong(value: Any) -> str | None:
        fits = is_finite(value) and accepts(value)
        return None if fits else f"got {value!r}; needs a number {bounds}."

    return wrong
