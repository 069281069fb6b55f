"""What rules leave of configurations that differ in independent knobs only, without trying each."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from orchestrator.space.rules import Rule, matches, places
from orchestrator.space.tree import Question, decision_order, plain
from trainables.errors import InputError

_MOST_TRIED = 3_000_000  # values of a knob, in all ways in which rules overlap: about a second


class Remainder:
    """What rules leave of the configurations that differ in the answers to `free` questions only.

    Every other knob has its value in `configuration`. Values that the same rules name are counted
    as one class, and rules that can no longer match are dropped knob by knob, so the work grows
    with the classes and with the rules that overlap, not with the values.
    """

    def __init__(
        self, configuration: Mapping[str, Any], free: Sequence[Question], rules: Sequence[Rule]
    ) -> None:
        self._configuration = configuration
        self._questions = {
            question.knob: question for question in free if question.answers is not None
        }
        self._rules = [rule for rule in map(self._open_part, rules) if rule is not None]
        names = dict.fromkeys(name for rule in self._rules for name in rule)
        self._classes = {name: self._classes_of(name) for name in names}

    @property
    def total(self) -> int:
        """How many there are before rules; a continuous range counts once."""
        return math.prod(map(_size, self._questions.values()))

    @cached_property
    def count(self) -> int:
        """How many of them no rule matches."""
        others = (each for name, each in self._questions.items() if name not in self._classes)
        return math.prod(map(_size, others)) * self._count(self._classes)

    def first(self) -> dict[str, Any] | None:
        """The first that no rule matches, in the order of a grid, or None."""
        classes: dict[str, list[_Class]] = dict(self._classes)
        if not self._count(classes):
            return None
        for name in (name for name in decision_order() if name in classes):
            narrowed = ({**classes, name: [one]} for one in classes[name])
            classes = next(each for each in narrowed if self._count(each))
        chosen = {
            name: _value(self._questions[name], one.first) for name, (one,) in classes.items()
        }
        return {**self._configuration, **chosen}

    def _open_part(self, rule: Rule) -> Rule | None:
        """The rule's conditions on free knobs; None if another knob keeps it from matching."""
        fixed = {name: values for name, values in rule.items() if name not in self._questions}
        if not matches(self._configuration, fixed):
            return None
        return {name: values for name, values in rule.items() if name in self._questions}

    def _classes_of(self, name: str) -> list[_Class]:
        question, named = self._questions[name], defaultdict[int, int](int)
        for at, rule in enumerate(self._rules):
            for place in places(question, rule.get(name, ())):
                named[place] |= 1 << at
        positions: dict[int, list[int]] = {}
        for place in sorted(named):
            positions.setdefault(named[place], []).append(place)
        classes = [_Class(rules, len(found), found[0]) for rules, found in positions.items()]
        rest = _size(question) - len(named)
        first = next(place for place in itertools.count() if place not in named)
        classes += [_Class(0, rest, first)] if rest else []
        return sorted(classes, key=lambda each: each.first)

    def _count(self, classes: Mapping[str, Sequence[_Class]]) -> int:
        """How many combinations of values of these knobs, all that rules name, no rule matches.

        Raises InputError if there are too many ways in which rules can overlap.
        """
        names, tried = [*classes], itertools.count(1)
        naming = [
            _bits(at for at, rule in enumerate(self._rules) if name in rule) for name in names
        ]
        last = [max(map(names.index, rule), default=-1) for rule in self._rules]
        over = [
            _bits(at for at, end in enumerate(last) if end < place)
            for place in range(len(names) + 1)
        ]

        @cache
        def left(place: int, alive: int) -> int:
            """As above, of the knobs from `place` on; the rules `alive` match those before it."""
            if alive & over[place]:
                return 0
            if place == len(names):
                return 1
            if next(tried) * len(classes[names[place]]) > _MOST_TRIED:
                raise InputError(_TOO_MANY.format(rules=len(self._rules), knobs=len(names)))
            return sum(
                one.size * left(place + 1, alive & (one.rules | ~naming[place]))
                for one in classes[names[place]]
            )

        return left(0, _bits(range(len(self._rules))))


@dataclass(frozen=True)
class _Class:
    """Values of a knob that the same rules name: how many, and the position of the first."""

    rules: int  # their numbers as bits
    size: int
    first: int


def _bits(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


_TOO_MANY = (
    "exclude: {rules} rules over {knobs} knobs overlap in too many ways to say what they leave. "
    "Name fewer knobs in a rule, or put the values that belong together in branches of the space."
)


def _size(question: Question) -> int:
    return len(question.answers or ())


def _value(question: Question, place: int) -> Any:
    """An answer as a configuration holds it."""
    assert question.answers is not None
    answer = question.answers[place]
    return answer if isinstance(answer, int | float) else plain(answer.value)
