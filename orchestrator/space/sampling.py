"""Sampling: configurations drawn at random, or suggested by Optuna (define-by-run)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Protocol

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


def random_configuration(space: Space, rng: random.Random) -> Sample:
    """As `sample`, with its parameters in a study."""
    return recorded(space, at_random(rng))


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
