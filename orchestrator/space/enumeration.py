"""Configurations of a space that no sampler suggests: at random, or one after another; and the
values of one knob.

Each configuration comes with the parameters by which a study can be told of it (`tree.suggest`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from orchestrator.space.tree import (
    Branch,
    Choice,
    Constant,
    Node,
    Question,
    Space,
    at_random,
    recorded,
)
from trainables.errors import InputError

Sample = tuple[dict[str, Any], dict[str, Any]]  # a configuration, and its parameters


def random_configuration(space: Space, rng: random.Random) -> Sample:
    """One drawn at random; every question is drawn on its own."""
    return recorded(space, at_random(rng))


def grid_configurations(space: Space) -> Iterator[Sample]:
    """Every configuration of a space of choices, each once; the last knob varies fastest.

    Raises InputError, once it gets there, for a continuous range.
    """
    return every(space, _all_choices)


def every(space: Space, answers: Callable[[Question], Sequence[Any]]) -> Iterator[Sample]:
    """Every configuration whose answers are among `answers(question)`, never an empty list."""
    digits: list[int] = []  # which answer each question gets: an odometer
    while True:
        sizes: list[int] = []
        yield recorded(space, _odometer(digits, sizes, answers))
        while digits and digits[-1] + 1 == sizes[len(digits) - 1]:
            digits.pop()
        if not digits:
            return
        digits[-1] += 1


def values_of(space: Space, knob: str) -> Iterator[tuple[str, Any]]:
    """Every single value that the space gives the knob, in branches too, with its path below
    `space`; of ranges there is none."""
    yield from _values(space.knobs, knob, "")


def _values(
    knobs: Iterable[tuple[str, Node]], wanted: str, prefix: str
) -> Iterator[tuple[str, Any]]:
    for name, node in knobs:
        options = node.options if isinstance(node, Choice) else [node]
        for option in options:
            if isinstance(option, Constant | Branch) and name == wanted:
                yield f"{prefix}{name}", option.value
            if isinstance(option, Branch):
                yield from _values(option.knobs, wanted, f"{prefix}{name}.{option.value}.")


def _all_choices(question: Question) -> Sequence[Any]:
    if question.answers is None:
        raise InputError(f"{question.name}: there is no end to a continuous range.")
    return question.answers


def _odometer(
    digits: list[int], sizes: list[int], answers: Callable[[Question], Sequence[Any]]
) -> Callable[[Question], Any]:
    def choose(question: Question) -> Any:
        allowed = answers(question)
        sizes.append(len(allowed))
        if len(sizes) > len(digits):
            digits.append(0)
        return allowed[digits[len(sizes) - 1]]

    return choose
