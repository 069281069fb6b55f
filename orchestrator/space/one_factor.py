"""One factor at a time: a reference configuration, then every other value of each of its knobs.

Each configuration differs from the reference in one knob (and in the knobs that it sets, if that
knob is a branch), so that the effect of its value is read against the reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.space.partial import answer_for, complete, levels, usual_answer
from orchestrator.space.rules import Rule, excluded
from orchestrator.space.tree import Choose, Question, Sample, Space, recorded, resolve, same


def one_factor(space: Space, rules: Sequence[Rule], reference: object) -> Iterator[Sample]:
    """The reference first, then knob by knob in the order in which knobs are decided.

    The knobs of a branch that the reference does not take have the reference's value if possible,
    else their usual one. What `rules` exclude is left out. Raises InputError if the reference is
    not in the space (see `partial.complete`).
    """
    center, parameters = complete(space, rules, reference, "search.reference")
    return _around(space, rules, center, parameters)


def _around(
    space: Space, rules: Sequence[Rule], center: Mapping[str, Any], parameters: dict[str, Any]
) -> Iterator[Sample]:
    yield dict(center), parameters
    for question in _questions_of(space, center):
        own = answer_for(question, center[question.knob])
        for level in levels(question):
            found = recorded(space, _with(center, question, level))
            if not _is(level, own) and not excluded(found[0], rules):
                yield found


def _questions_of(space: Space, center: Mapping[str, Any]) -> list[Question]:
    """The questions that the reference answers, in order."""
    found: list[Question] = []

    def choose(question: Question) -> Any:
        found.append(question)
        return _as_in(center, question)

    resolve(space, choose)
    return found


def _with(center: Mapping[str, Any], changed: Question, answer: Any) -> Choose:
    def choose(question: Question) -> Any:
        return answer if question == changed else _as_in(center, question)

    return choose


def _as_in(center: Mapping[str, Any], question: Question) -> Any:
    found = answer_for(question, center[question.knob]) if question.knob in center else None
    return usual_answer(question) if found is None else found


def _is(level: Any, own: Any) -> bool:
    return level is own or same(level, own)
