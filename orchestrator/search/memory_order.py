"""What needs at least as much memory as what: an order of configurations, knob by knob.

One configuration needs at least as much as another if it does in every knob whose row in KNOBS
orders its values, and the two are equal in all other knobs that memory depends on. Nothing is
estimated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.spec.knobs import KNOBS, with_unsaid
from trainables.spec.memory_effect import CELL, MemoryEffect

Knobs = Mapping[str, Any]  # canonical


@dataclass(frozen=True)
class MemoryDemand:
    """What a configuration needs: comparable with others of its kind, in each amount."""

    kind: tuple[tuple[str, str], ...]  # the knobs that two must share to be compared at all
    amounts: tuple[tuple[str, Any], ...]  # the knobs whose values are ordered

    @classmethod
    def of(cls, knobs: Knobs) -> MemoryDemand:
        read = sorted(with_unsaid(knobs).items())
        counted = [(name, value) for name, value in read if depends_on(name)]
        ordered = [(name, value) for name, value in counted if _effect(name).is_ordered]
        kind = tuple((name, "" if _effect(name).is_ordered else repr(v)) for name, v in counted)
        return cls(kind, tuple(ordered))

    def is_at_least(self, other: MemoryDemand) -> bool:
        """Whether this surely needs as much memory as the other; False where it is not known."""
        return self.kind == other.kind and all(
            _is_at_least(name, mine, theirs)
            for (name, mine), (_, theirs) in zip(self.amounts, other.amounts, strict=True)
        )


def depends_on(name: str) -> bool:
    """Whether memory depends on the knob; it does on one that has no row."""
    return not _effect(name).is_none


def _is_at_least(name: str, mine: Any, theirs: Any) -> bool:
    at_least = _effect(name).at_least
    return at_least is not None and at_least(mine, theirs)


def _effect(name: str) -> MemoryEffect:
    return KNOBS[name].memory if name in KNOBS else CELL
