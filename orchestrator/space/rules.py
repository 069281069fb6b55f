"""Rules of `exclude`: what one matches, and which answers to a question none forbids.

A rule maps knobs to values; it matches a configuration in which every one of its knobs has one of
the values given for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.space.tree import Question, same

Rule = Mapping[str, tuple[Any, ...]]


def matches(configuration: Mapping[str, Any], rule: Rule) -> bool:
    """Whether every knob of the rule has one of its values there."""
    return all(
        name in configuration and _is_among(configuration[name], values)
        for name, values in rule.items()
    )


def excluded(configuration: Mapping[str, Any], rules: Iterable[Rule]) -> bool:
    """Whether a rule matches; a knob that the configuration lacks matches nothing."""
    return any(matches(configuration, rule) for rule in rules)


def places(question: Question, values: Iterable[Any]) -> set[int]:
    """The positions of those answers to a question that have one of the values."""
    found = (question.place(value) for value in values)
    return {place for place in found if place is not None}


def admissible(
    question: Question, decided: Mapping[str, Any], rules: Sequence[Rule]
) -> Sequence[Any]:
    """The answers after which no rule matches, whatever the knobs still open become.

    `decided` holds the knobs before the question; there may be no such answer. The time it takes
    does not grow with the number of answers.
    """
    assert question.answers is not None
    if excluded(decided, rules):
        return ()
    forbidden: set[int] = set()
    for rule in rules:
        others = {name: values for name, values in rule.items() if name != question.knob}
        if question.knob in rule and matches(decided, others):
            forbidden |= places(question, rule[question.knob])
    return _Without(question.answers, sorted(forbidden)) if forbidden else question.answers


@dataclass(frozen=True)
class _Without(Sequence[Any]):
    """A sequence without the items at some positions, which are in ascending order."""

    items: Sequence[Any]
    left_out: Sequence[int]

    def __len__(self) -> int:
        return len(self.items) - len(self.left_out)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        for place in self.left_out:
            if place > index:
                break
            index += 1
        return self.items[index]


def _is_among(value: Any, values: tuple[Any, ...]) -> bool:
    if not isinstance(value, float) and value not in values:
        return False  # fast: `same` is asked only of what is there, or may be within rounding
    return any(same(value, each) for each in values)
