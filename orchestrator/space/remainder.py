"""What rules leave of configurations that differ in independent knobs only, without trying each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from orchestrator.space.tree import Question, Range, decision_order, same

Rule = Mapping[str, tuple[Any, ...]]


def matches(configuration: Mapping[str, Any], rule: Rule) -> bool:
    """Whether every knob of the rule has one of its values there."""
    return all(
        name in configuration and _is_among(configuration[name], values)
        for name, values in rule.items()
    )


def values_of(question: Question) -> list[Any]:
    """The answers to a question that has so many, as a configuration holds them."""
    if isinstance(question, Range):
        return [*(question.answers or ())]
    values = (option.value for option in question.options)
    return [list(value) if isinstance(value, tuple) else value for value in values]


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
        self._values = {
            question.knob: values_of(question) for question in free if question.answers is not None
        }
        self._rules = [rule for rule in map(self._open_part, rules) if rule is not None]
        names = dict.fromkeys(name for rule in self._rules for name in rule)
        self._classes = {name: self._classes_of(name) for name in names}

    @property
    def total(self) -> int:
        """How many there are before rules; a continuous range counts once."""
        return math.prod(map(len, self._values.values()))

    @cached_property
    def count(self) -> int:
        """How many of them no rule matches."""
        others = (values for name, values in self._values.items() if name not in self._classes)
        return math.prod(map(len, others)) * self._count(self._classes)

    def first(self) -> dict[str, Any] | None:
        """The first that no rule matches, in the order of a grid, or None."""
        classes: dict[str, list[_Class]] = dict(self._classes)
        if not self._count(classes):
            return None
        for name in (name for name in decision_order() if name in classes):
            narrowed = ({**classes, name: [one]} for one in classes[name])
            classes = next(each for each in narrowed if self._count(each))
        chosen = {name: self._values[name][one.first] for name, (one,) in classes.items()}
        return {**self._configuration, **chosen}

    def _open_part(self, rule: Rule) -> Rule | None:
        """The rule's conditions on free knobs; None if another knob keeps it from matching."""
        fixed = {name: values for name, values in rule.items() if name not in self._values}
        if not matches(self._configuration, fixed):
            return None
        return {name: values for name, values in rule.items() if name in self._values}

    def _classes_of(self, name: str) -> list[_Class]:
        naming = [place for place, rule in enumerate(self._rules) if name in rule]
        classes: dict[frozenset[int], list[int]] = {}
        for position, value in enumerate(self._values[name]):
            rules = frozenset(at for at in naming if _is_among(value, self._rules[at][name]))
            classes.setdefault(rules, []).append(position)
        return [_Class(rules, len(found), found[0]) for rules, found in classes.items()]

    def _count(self, classes: Mapping[str, Sequence[_Class]]) -> int:
        """How many combinations of values of these knobs, all that rules name, no rule matches."""
        names = [*classes]
        last = [max(map(names.index, rule), default=-1) for rule in self._rules]
        naming = [{at for at, rule in enumerate(self._rules) if name in rule} for name in names]

        @cache
        def left(place: int, alive: frozenset[int]) -> int:
            """As above, of the knobs from `place` on; the rules `alive` match those before it."""
            if any(last[rule] < place for rule in alive):
                return 0
            if place == len(names):
                return 1
            return sum(
                one.size * left(place + 1, (alive - naming[place]) | (alive & one.rules))
                for one in classes[names[place]]
            )

        return left(0, frozenset(range(len(self._rules))))


@dataclass(frozen=True)
class _Class:
    """Values of a knob that the same rules name: how many, and the position of the first."""

    rules: frozenset[int]
    size: int
    first: int


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    if not isinstance(value, float) and value not in values:
        return False  # fast: `same` is asked only of what is there, or may be within rounding
    return any(same(value, each) for each in values)
