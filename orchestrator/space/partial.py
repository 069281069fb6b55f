"""Partial configurations: flat mappings of knobs to values, with some knobs left out.

A user gives them as `search.start_with` and `search.reference`. A branch is given by its name:
`method: lora`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.space.enumeration import every
from orchestrator.space.foreign_names import meant
from orchestrator.space.rules import Rule, excluded
from orchestrator.space.tree import (
    Branch,
    Choice,
    Constant,
    Node,
    Question,
    Sample,
    Space,
    branches_of,
    decision_order,
    plain,
    questions,
    same,
)
from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import is_finite
from trainables.spec.knobs import KNOBS

Given = Mapping[str, Any]
_DECIDING = (  # they decide what else is read
    "model",
    "method",
    "quantization",
    "batch_size",
    "answer",
    "decoding",
)
_LEVELS = 5


def complete(space: Space, rules: Sequence[Rule], given: object, where: str) -> Sample:
    """The configuration with the values of `given`; other knobs have their usual answer.

    If that is excluded or impossible, further options of choices that may change it are tried.
    Raises InputError with all that is wrong: knobs that the space does not have, values outside of
    it, values that exclude each other, and what `rules` exclude.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: got {given!r}; needs knobs and their values, as {{rank: 8}}.")
    faults = [fault for name, value in given.items() for fault in _faults(space, name, value)]
    if faults:
        raise InputError([f"{where}.{fault}" for fault in faults])
    found = next(_completions(space, given, rules), None)
    if found is None:
        forbidden, _ = next(_completions(space, given, rules, admits=()), (None, {}))
        raise InputError(f"{where}: {_why_not(forbidden, given, rules)}")
    return found


def has(configuration: Mapping[str, Any], given: Given) -> bool:
    """Whether the configuration has each of the given values."""
    return all(
        name in configuration and same(configuration[name], value) for name, value in given.items()
    )


def parameters_of(space: Space, given: Given) -> dict[str, Any]:
    """The given values as parameters of a study, for every question that they may answer."""
    found = {}
    for question in questions(space):
        answer = answer_for(question, given[question.knob]) if question.knob in given else None
        if answer is not None:
            found[question.name] = question.parameter(answer)
    return found


def answer_for(question: Question, value: Any) -> Any:
    """The question's answer that has this value; None if it has none."""
    if question.answers is not None:
        place = question.place(value)
        return None if place is None else question.answers[place]
    if isinstance(question, Choice) or not is_finite(value):
        return None
    return float(value) if question.low <= value <= question.high else None


def usual_answer(question: Question) -> Any:
    """The first option of a choice, the middle of a range (geometric where it is logarithmic)."""
    if isinstance(question, Choice):
        return question.options[0]
    if question.answers is not None:
        return question.answers[(len(question.answers) - 1) // 2]
    if question.kind == "log_uniform":
        return math.sqrt(question.low * question.high)
    return (question.low + question.high) / 2


def levels(question: Question) -> Sequence[Any]:
    """All options of a choice; of a range up to 5 answers from end to end, evenly spaced."""
    if isinstance(question, Choice):
        return question.options
    steps = [place / (_LEVELS - 1) for place in range(_LEVELS)]
    if question.answers is not None:
        last = len(question.answers) - 1
        return [question.answers[place] for place in sorted({round(last * at) for at in steps})]
    low, high = question.low, question.high
    if question.kind == "log_uniform":
        inner = [low * (high / low) ** at for at in steps[1:-1]]
    else:
        inner = [low + (high - low) * at for at in steps[1:-1]]
    return [low, *inner, high]


def _faults(space: Space, name: Any, value: Any) -> Iterator[str]:
    """What is wrong with one given knob, regardless of the others."""
    nodes = list(_nodes(space.knobs, name))
    if not nodes:
        here = list(dict.fromkeys(_names(space.knobs)))
        is_knob = name in KNOBS
        what = "not a knob of this space" if is_knob else "unknown key"
        yield f"{name}: {what}.{did_you_mean(name, here) if is_knob else meant(name, here)}"
    elif not any(_takes(node, value) for node in nodes):
        allowed = dict.fromkeys(_allowed(node) for node in nodes)
        yield f"{name}: got {value!r}; the space has {', or '.join(allowed)}."


def _completions(
    space: Space, given: Given, rules: Sequence[Rule], *, admits: Sequence[Rule] | None = None
) -> Iterator[Sample]:
    """The configurations with the given values that the rules leave, or those that `admits` do."""
    left_by = rules if admits is None else admits
    narrowed = _narrowed(given, rules)

    def answers(question: Question, decided: Given) -> Sequence[Any]:
        if excluded(decided, left_by) or _contradicts(decided, given, question.knob):
            return ()
        return narrowed(question)

    for sample in every(space, answers):
        if has(sample[0], given) and not excluded(sample[0], left_by):
            yield sample


def _contradicts(decided: Given, given: Given, knob: str) -> bool:
    """Whether a given knob that comes before `knob` is not read, or has another value."""
    order = decision_order()
    before = order[: order.index(knob)]
    return any(name in before and not has(decided, {name: given[name]}) for name in given)


def _narrowed(given: Given, rules: Sequence[Rule]) -> Callable[[Question], Sequence[Any]]:
    """The answers to try: the given one, else the usual one, or all if the choice may matter."""
    ruled = {name for rule in rules for name in rule}

    def answers(question: Question) -> Sequence[Any]:
        if question.knob in given:
            found = answer_for(question, given[question.knob])
            return [usual_answer(question) if found is None else found]
        if isinstance(question, Choice) and _may_matter(question, ruled):
            return question.options
        return [usual_answer(question)]

    return answers


def _may_matter(question: Choice, ruled: Iterable[str]) -> bool:
    branches = any(isinstance(option, Branch) for option in question.options)
    return branches or question.knob in _DECIDING or question.knob in ruled


def _why_not(forbidden: Given | None, given: Given, rules: Sequence[Rule]) -> str:
    if forbidden is None:
        together = ", ".join(f"{name}: {value}" for name, value in given.items())
        return (
            f"no configuration of the space has {together} together. "
            "Leave out what is not read there, or give the branch it belongs to."
        )
    place = next(place for place, rule in enumerate(rules) if excluded(forbidden, [rule]))
    return f"exclude[{place}] forbids it: {dict(rules[place])}. Give other values."


def _nodes(knobs: Iterable[tuple[str, Node]], name: str) -> Iterator[Node]:
    """Every node of the space that sets the knob."""
    for found, node in knobs:
        if found == name:
            yield node
        for inner in branches_of(node):
            yield from _nodes(inner, name)


def _names(knobs: Iterable[tuple[str, Node]]) -> Iterator[str]:
    for name, node in knobs:
        yield name
        for inner in branches_of(node):
            yield from _names(inner)


def _takes(node: Node, value: Any) -> bool:
    if isinstance(node, Constant | Branch):
        return same(plain(node.value), value)
    return answer_for(node, value) is not None


def _allowed(node: Node) -> str:
    if isinstance(node, Constant | Branch):
        return f"only {plain(node.value)}"
    if isinstance(node, Choice):
        return ", ".join(str(plain(option.value)) for option in node.options)
    step = "" if node.step is None else f" in steps of {node.step:g}"
    return f"{node.low:g} to {node.high:g}{step}"
