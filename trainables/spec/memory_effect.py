"""MemoryEffect: how the values of a hyperparameter act on the memory that a trial needs.

Nothing is estimated here: an effect orders values, or no order is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

AtLeast = Callable[[Any, Any], bool]


@dataclass(frozen=True)
class MemoryEffect:
    """One of NONE, CELL, UP, DOWN, `above(...)`, or an order of its own.

    `at_least`: whether a trial with the first value surely needs at least as much memory as one
    with the second, all else being equal; None: only equal values can be compared.
    """

    at_least: AtLeast | None = None
    is_none: bool = False  # memory does not depend on the values

    @property
    def is_ordered(self) -> bool:
        return self.at_least is not None


def above(limit: float) -> MemoryEffect:
    """Only whether a value is above `limit` matters; one above it needs more."""
    return MemoryEffect(lambda one, other: bool(one > limit or other <= limit))


def _up(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return numbers and bool(one >= other)


def _down(one: Any, other: Any) -> bool:
    return bool(one <= other)


NONE = MemoryEffect(is_none=True)
CELL = MemoryEffect()
UP = MemoryEffect(_up)  # a greater number needs more; other values are not comparable
DOWN = MemoryEffect(_down)  # a greater number, or true instead of false, needs less
