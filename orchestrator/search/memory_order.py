"""What needs at least as much memory as what: an order of configurations, knob by knob.

One configuration needs at least as much as another if it does in every knob that it is ordered
by, and the two are equal in all other knobs that touch memory. Nothing is estimated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.spec.knobs import AUTO

Knobs = Mapping[str, Any]  # canonical
AtLeast = Callable[[Any, Any], bool]  # whether the first needs at least as much as the second


def _number(one: Any, other: Any) -> bool:
    """A larger number needs at least as much."""
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return numbers and bool(one >= other)


def _rows(one: Any, other: Any) -> bool:
    """As `_number`; `auto` counts as 1, to which it shrinks before it is refused."""
    return _number(*(1 if value == AUTO else value for value in (one, other)))


def _above(least: float) -> AtLeast:
    """Only whether it is above `least` matters."""

    def compare(one: Any, other: Any) -> bool:
        return bool(one > least or other <= least)

    return compare


def _off(one: Any, other: Any) -> bool:
    """Off needs more than on."""
    return bool(other or not one)


def _superset(one: Any, other: Any) -> bool:
    """A superset of modules needs at least as much; a name is compared by equality only."""
    if isinstance(one, str) or isinstance(other, str):
        return one in (other, "all-linear")
    return set(one) >= set(other)


ORDERED: dict[str, AtLeast] = {
    "batch_size": _rows,
    "sequence_length": _number,
    "rank": _number,
    "effective_batch_size": _above(1),
    "gradient_accumulation": _above(1),  # gradients stay while the next micro-batch runs
    "dropout": _above(0),  # its masks are kept
    "gradient_checkpointing": _off,
    "target_modules": _superset,
}
FREE = frozenset(  # knobs that touch no memory
    (
        "alpha",
        "learning_rate",
        "max_gradient_norm",
        "schedule",
        "seed",
        "warmup",
        "weight_decay",
    )
)


@dataclass(frozen=True)
class MemoryDemand:
    """What a configuration needs: comparable with others of its kind, in each amount."""

    kind: tuple[tuple[str, str], ...]  # the knobs that two must share to be compared at all
    amounts: tuple[Any, ...]  # one for each row of ORDERED; None: the knob is not read

    @classmethod
    def of(cls, knobs: Knobs) -> MemoryDemand:
        kind = tuple(
            (name, "" if name in ORDERED else repr(value))
            for name, value in sorted(knobs.items())
            if name not in FREE
        )
        return cls(kind, tuple(knobs.get(name) for name in ORDERED))

    def is_at_least(self, other: MemoryDemand) -> bool:
        """Whether this surely needs as much memory as the other; False where it is not known."""
        return self.kind == other.kind and all(
            mine is None or at_least(mine, theirs)
            for at_least, mine, theirs in zip(
                ORDERED.values(), self.amounts, other.amounts, strict=True
            )
        )
