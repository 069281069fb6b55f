"""Constraints: rules that exclude configurations of a space, and what they leave.

A rule maps knobs to values; it matches a configuration in which every one of its knobs has one of
the values given for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.space.enumeration import combinations
from orchestrator.space.foreign_names import meant
from orchestrator.space.remainder import Remainder
from orchestrator.space.rules import Rule, matches, places
from orchestrator.space.tree import Branch, Choice, Question, Space, questions, resolve
from trainables.errors import InputError
from trainables.spec import knobs
from trainables.spec.knobs import KNOBS

_CELL = ("model", "quantization", "method")


@dataclass(frozen=True)
class Cell:
    """One model, quantization and method, and how many configurations it holds.

    A continuous range counts as one value, and rules about its values are ignored.
    """

    model: str
    quantization: str
    method: str
    configurations: int  # before exclusions
    excluded: int


def parse_rules(value: object, where: str = "exclude") -> tuple[Rule, ...]:
    """The rules that YAML's `value` describes; raises InputError with every fault in them."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InputError(f"{where}: got {value!r}; needs a list of rules, as - {{method: full}}.")
    faults = [
        fault for place, rule in enumerate(value) for fault in _faults(rule, f"{where}[{place}]")
    ]
    if faults:
        raise InputError(faults)
    return tuple(
        {name: tuple(_listed(name, given)) for name, given in rule.items()} for rule in value
    )


def render_rules(rules: Iterable[Rule]) -> list[dict[str, Any]]:
    """YAML's value for the rules: parse_rules(render_rules(rules)) == rules."""
    return [
        {name: values[0] if len(values) == 1 else list(values) for name, values in rule.items()}
        for rule in rules
    ]


def count(space: Space, rules: Sequence[Rule] = ()) -> int | None:
    """How many configurations the rules leave; None if one has a continuous range."""
    total = 0
    for configuration, left in combinations(space, decides()):
        remainder = Remainder(configuration, left, rules)
        if remainder.count and any(question.answers is None for question in left):
            return None
        total += remainder.count
    return total


def cells(space: Space, rules: Sequence[Rule] = ()) -> list[Cell]:
    """Every model, quantization and method of the space, in its order."""
    totals: dict[tuple[str, str, str], list[int]] = {}
    for configuration, left in combinations(space, decides()):
        model, quantization, method = (_value(configuration, name) for name in _CELL)
        remainder = Remainder(configuration, left, rules)
        total = totals.setdefault((model, quantization, method), [0, 0])
        total[0] += remainder.total
        total[1] += remainder.total - remainder.count
    return [Cell(*key, total, out) for key, (total, out) in totals.items()]


def surviving(
    space: Space, rules: Sequence[Rule], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """One configuration that the rules leave for each combination of the knobs `names`.

    Other knobs have their first value, if the rules leave it, and continuous ranges are left out.
    Configurations are in the order of a grid.
    """
    firsts: dict[tuple[Any, ...], tuple[list[int], dict[str, Any]]] = {}
    for configuration, left in combinations(space, decides(names)):
        found = Remainder(configuration, left, rules).first()
        if found is not None:
            key, place = tuple(_hashable(found.get(name)) for name in names), _place(space, found)
            if key not in firsts or place < firsts[key][0]:
                firsts[key] = place, found
    yield from (found for _, found in sorted(firsts.values(), key=lambda item: item[0]))


def leaves_nothing(space: Space, rules: Sequence[Rule]) -> bool:
    """Whether every configuration is excluded."""
    found = combinations(space, decides())
    return not any(Remainder(configuration, left, rules).count for configuration, left in found)


def idle_rules(space: Space, rules: Sequence[Rule]) -> list[str]:
    """One line for each rule that matches nothing of the space.

    Not an error: `--set` narrows a space without touching its rules.
    """
    open_ = {question.knob for question in questions(space) if question.answers is None}
    varied = [
        {name: values for name, values in rule.items() if name not in open_} for rule in rules
    ]
    idle = set(range(len(rules)))
    for configuration, left in combinations(space, decides()):
        free = {question.knob: question for question in left if question.answers is not None}
        idle -= {at for at in idle if _may_match(configuration, free, varied[at])}
    return [f"exclude[{at}]: matches no configuration of this space." for at in sorted(idle)]


def _may_match(configuration: Mapping[str, Any], free: Mapping[str, Question], rule: Rule) -> bool:
    """Whether it matches with some answers to the `free` questions, by knob."""
    fixed = {name: values for name, values in rule.items() if name not in free}
    return matches(configuration, fixed) and all(
        places(free[name], values) for name, values in rule.items() if name in free
    )


def _faults(rule: object, where: str) -> list[str]:
    if not isinstance(rule, Mapping) or not rule:
        return [f"{where}: got {rule!r}; needs a mapping of knobs to values, as {{method: full}}."]
    faults = [
        f"{where}.{name}: {wrong}"
        for name, given in rule.items()
        for value in _listed(name, given)
        if (wrong := _wrong(name, value))
    ]
    empty = [f"{where}.{name}: the list is empty." for name, given in rule.items() if given == []]
    return [*faults, *empty]


def _wrong(name: Any, value: Any) -> str | None:
    known = name in KNOBS
    return knobs.check(name, value) if known else f"unknown key.{meant(name, KNOBS)}"


def _listed(name: str, given: Any) -> list[Any]:
    """The values that a rule gives for a knob."""
    several = isinstance(given, list) and not knobs.is_one_value(name, given)
    return given if several else [given]


def _value(configuration: Mapping[str, Any], name: str) -> Any:
    return configuration.get(name, KNOBS[name].default)


def decides(names: Sequence[str] = _CELL) -> Callable[[Question], bool]:
    """Whether a question decides the cell, one of `names`, or which other knobs are read."""
    named = {*_CELL, *names}

    def asked(question: Question) -> bool:
        options = question.options if isinstance(question, Choice) else ()
        return (
            question.knob in named
            or any(isinstance(option, Branch) for option in options)
            or any(map(KNOBS[question.knob].switches, (option.value for option in options)))
        )

    return asked


def _place(space: Space, configuration: Mapping[str, Any]) -> list[int]:
    """Where a grid has the configuration: the position of each answer, in the order of asking."""
    positions: list[int] = []

    def choose(question: Question) -> Any:
        answers = question.answers
        if answers is None:
            return math.nan
        place = question.place(configuration[question.knob])
        assert place is not None
        positions.append(place)
        return answers[place]

    resolve(space, choose)
    return positions


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
