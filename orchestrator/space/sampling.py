"""Sampling: configurations drawn at random, or suggested by Optuna (define-by-run)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.space.rules import Rule, admissible, excluded
from orchestrator.space.tree import Choose, Question, Range, Sample, Space, recorded, resolve


class Trial(Protocol):
    """The methods of an Optuna trial that `suggest` calls."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...


def sample(space: Space, rng: random.Random) -> dict[str, Any]:
    """A configuration drawn at random; every answer is independent."""
    return resolve(space, at_random(rng))


def random_configuration(
    space: Space, rng: random.Random, rules: Sequence[Rule] = ()
) -> Sample | None:
    """As `sample`, with its parameters in a study, and among the answers that no rule forbids.

    None if the answers that were drawn leave none to a question, or a rule matches all the same.
    """
    decided: dict[str, Any] = {}

    def choose(question: Question) -> Any:
        if question.answers is None or not rules:
            return at_random(rng)(question)
        kept = admissible(question, decided, rules)
        if not kept:
            raise _NoneLeftError
        return rng.choice(kept)

    try:
        found = recorded(space, choose, decided)
    except _NoneLeftError:
        return None
    return None if excluded(found[0], rules) else found


class _NoneLeftError(Exception):
    """A question has no answer that the rules leave."""


def at_random(rng: random.Random) -> Choose:
    """Answers each question independently at random."""

    def choose(question: Question) -> Any:
        if isinstance(question, Range) and question.answers is None:
            return _draw(question, rng)
        return rng.choice(question.answers or ())

    return choose


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """The configuration that an Optuna trial suggests, one parameter per question."""

    def choose(question: Question) -> Any:
        if isinstance(question, Range):
            return _suggest_number(question, trial)
        labels = question.labels
        return question.options[labels.index(trial.suggest_categorical(question.name, labels))]

    return resolve(space, choose)


def _draw(question: Range, rng: random.Random) -> float:
    low, high = question.low, question.high
    if question.kind == "uniform":
        return rng.uniform(low, high)
    return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)


def _suggest_number(question: Range, trial: Trial) -> float:
    name, low, high = question.name, question.low, question.high
    if question.kind == "integers":
        return trial.suggest_int(name, int(low), int(high), step=int(question.step or 1))
    log = question.kind == "log_uniform"
    return trial.suggest_float(name, low, high, step=question.step, log=log)
