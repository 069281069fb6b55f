"""Knobs that a space sets and that no trial of it reads: what was written there would be lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.space.constraints import decides
from orchestrator.space.enumeration import settings_read
from orchestrator.space.tree import Branch, Choice, Node, Space, is_read
from trainables.methods.registry import METHODS
from trainables.spec.decoding import STRATEGIES
from trainables.spec.knob_values import AUTO
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.rows.task_knobs import ANSWERS

_DECIDERS: dict[
    str, list[Any]
] = {  # the knobs on which it depends whether another one is read, and their kinds
    "method": [name for name, method in METHODS.items() if not method.is_baseline],
    "quantization": [*QUANTIZATIONS],
    "batch_size": [1, AUTO],
    "answer": [*ANSWERS],
    "decoding": [*STRATEGIES],
}


def unread_knobs(space: Space) -> dict[str, str]:
    """Why no configuration reads a knob that the space sets, by its path below `space`."""
    read = list(settings_read(space, decides()))
    places, names = {id(node) for _, node in read}, {name for name, _ in read}
    return {
        path: _reason(name, has_others=name in names)
        for path, name, node in _settings(space.knobs, "")
        if id(node) not in places
    }


def _reason(name: str, *, has_others: bool) -> str:
    if has_others:
        return f"every trial that reads {name} has the value of a branch. Leave this one out."
    conditions = " and ".join(_conditions(name))
    return f"no trial of this space reads it; it is read with {conditions}. Leave it out."


def _conditions(name: str) -> Iterator[str]:
    bases = [
        dict(zip(_DECIDERS, values, strict=True))
        for values in itertools.product(*_DECIDERS.values())
    ]
    reading = [base for base in bases if is_read(name, base)]
    for decider, values in _DECIDERS.items():
        wanted = [value for value in values if any(base[decider] == value for base in reading)]
        if 0 < len(wanted) < len(values):
            words = "a number" if wanted == [1] else " or ".join(map(str, wanted))
            yield f"{decider}: {words}"


def _settings(knobs: Iterable[tuple[str, Node]], prefix: str) -> Iterator[tuple[str, str, Node]]:
    """Every node of a space with its path and its knob, inside branches too."""
    for name, node in knobs:
        yield f"{prefix}{name}", name, node
        for option in node.options if isinstance(node, Choice) else [node]:
            if isinstance(option, Branch):
                yield from _settings(option.knobs, f"{prefix}{name}.{option.value}.")
