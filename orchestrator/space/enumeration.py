"""Enumeration: every configuration of a space, or of some of its questions; values of a knob."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from orchestrator.space.rules import Rule, admissible, excluded
from orchestrator.space.tree import (
    Branch,
    Choice,
    Choose,
    Constant,
    Node,
    Question,
    Sample,
    Space,
    questions,
    recorded,
    resolve,
    settled,
)
from trainables.errors import InputError

Decided = Mapping[str, Any]  # the knobs before a question, by name
Answers = Callable[[Question, Decided], Sequence[Any]]
_Walk = TypeVar("_Walk")


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every configuration, each once; the last knob of `decision_order` varies fastest.

    Raises InputError, at once, if the space holds a continuous range.
    """
    continuous = [question for question in questions(space) if question.answers is None]
    if continuous:
        raise InputError([_no_grid(question) for question in continuous])
    return (configuration for configuration, _ in combinations(space, lambda question: True))


def grid_configurations(space: Space, rules: Sequence[Rule] = ()) -> Iterator[Sample]:
    """As `grid`, with the parameters in a study, without those that a rule excludes.

    Answers that a rule forbids are not gone through. Reaching a continuous range raises InputError.
    """
    found = every(space, lambda question, decided: _admissible(question, decided, rules))
    return (sample for sample in found if not excluded(sample[0], rules))


def every(space: Space, answers: Answers) -> Iterator[Sample]:
    """Every configuration whose answers are among `answers(question, decided)`; where that is empty
    there is none."""
    decided: dict[str, Any] = {}
    return _walks(
        lambda choose: recorded(space, choose, decided),
        lambda question: answers(question, decided),
    )


def combinations(
    space: Space, spread: Callable[[Question], bool]
) -> Iterator[tuple[dict[str, Any], list[Question]]]:
    """Every combination of the answers to the questions that are `spread`, each with the questions
    left over: those take their first answer, and a continuous range is left out.
    """

    def walk(choose: Choose) -> tuple[dict[str, Any], list[Question]]:
        left: list[Question] = []
        configuration = resolve(space, _spreading(spread, choose, left))
        open_ = {question.knob for question in left if question.answers is None}
        return {name: value for name, value in configuration.items() if name not in open_}, left

    return _walks(walk, _all_answers)


def settings_read(space: Space, spread: Callable[[Question], bool]) -> Iterator[tuple[str, Node]]:
    """The knobs, each with the node that sets it, of every combination of the answers to the
    questions that are `spread`; those may come again."""

    def walk(choose: Choose) -> list[tuple[str, Node]]:
        chosen = settled(space, _spreading(spread, choose, []))
        return [(name, node) for name, node, _ in chosen]

    return itertools.chain.from_iterable(_walks(walk, _all_answers))


def values_of(space: Space, knob: str) -> Iterator[tuple[str, Any]]:
    """Every single value that the space gives the knob, inside branches too, with its path below
    `space`; the numbers of ranges are left out."""
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


class _DeadEnd(Exception):  # noqa: N818  # no error: a question has no answer to try
    """Raised in a walk by a question that has no answers."""


def _walks(
    walk: Callable[[Choose], _Walk], answers: Callable[[Question], Sequence[Any]]
) -> Iterator[_Walk]:
    """The results of `walk` for every combination of answers to the questions that it asks; those
    to the last question vary fastest."""
    allowed: list[Sequence[Any]] = []  # answers to each question
    positions: list[int] = []  # of the answer to each question: an odometer
    while True:
        try:
            found = walk(_chooser(positions, allowed, answers))
        except _DeadEnd:
            pass
        else:
            yield found
        while positions and positions[-1] + 1 == len(allowed[-1]):
            positions.pop()
            allowed.pop()
        if not positions:
            return
        positions[-1] += 1


def _chooser(
    positions: list[int],
    allowed: list[Sequence[Any]],
    answers: Callable[[Question], Sequence[Any]],
) -> Choose:
    """Returns the answers at `positions`; appends the answers to further questions, and the first
    positions."""
    asked = itertools.count()

    def choose(question: Question) -> Any:
        place = next(asked)
        if place == len(positions):
            found = answers(question)
            if not found:
                raise _DeadEnd
            allowed.append(found)
            positions.append(0)
        return allowed[place][positions[place]]

    return choose


def _spreading(spread: Callable[[Question], bool], choose: Choose, left: list[Question]) -> Choose:
    """Asks `choose` what is `spread`; adds the other questions to `left`, with a first answer."""

    def choose_if_spread(question: Question) -> Any:
        answers = question.answers
        if answers is not None and spread(question):
            return choose(question)
        left.append(question)
        return answers[0] if answers else math.nan

    return choose_if_spread


def _all_answers(question: Question) -> Sequence[Any]:
    return _admissible(question, {}, ())


def _admissible(question: Question, decided: Decided, rules: Sequence[Rule]) -> Sequence[Any]:
    if question.answers is None:
        raise InputError(f"{question.name}: there is no end to a continuous range.")
    return admissible(question, decided, rules)


def _no_grid(question: Question) -> str:
    return (
        f"space.{question.path}: a grid search can't walk a continuous range. "
        "Give a list of values or a step, or use search.algorithm: tpe or random."
    )
