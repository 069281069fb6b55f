"""Space: the configurations a sweep may try, as a small tree, and the ways to walk it.

`resolve` asks one question after another and never one whose answer would not be read: a knob
inside a branch exists only there and overrides the top level, and a knob that the chosen method
or quantization does not read is left out. Grid, random and Optuna's define-by-run differ only
in who answers. `grammar.py` makes a Space from YAML.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainables.errors import InputError
from trainables.spec.knobs import KNOBS, defaults

_FIRST = ("model", "method", "quantization")  # they decide which other knobs are read


@dataclass(frozen=True)
class Constant:
    """A value that is not varied; a literal list is held as a tuple."""

    value: Any


@dataclass(frozen=True)
class Branch:
    """A value of a knob that brings knobs of its own, as `lora: {rank: [4, 8]}`."""

    value: Any
    knobs: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Choice:
    """One of the options; the values of its options differ from one another."""

    knob: str
    path: str  # below `space`, as `method.lora.rank`
    options: tuple[Constant | Branch, ...]

    @property
    def name(self) -> str:
        """What Optuna calls it: unique in its space, stable from run to run."""
        return self.path.removeprefix("method.")

    @property
    def answers(self) -> Sequence[Constant | Branch]:
        return self.options

    @property
    def labels(self) -> list[Any]:
        """The options as Optuna can store them: their values, or their positions."""
        values = [option.value for option in self.options]
        plain = all(isinstance(value, str | int | float | None) for value in values)
        return values if plain else list(range(len(values)))

    def parameter(self, answer: Constant | Branch) -> Any:
        """What Optuna stores for one of the options."""
        position = next(place for place, option in enumerate(self.options) if option is answer)
        return self.labels[position]


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included; with a step, low + k * step up to high."""

    knob: str
    path: str
    kind: str  # one of grammar.RANGES
    low: float
    high: float
    step: float | None = None

    @property
    def name(self) -> str:
        """What Optuna calls it: unique in its space, stable from run to run."""
        return self.path.removeprefix("method.")

    @property
    def answers(self) -> Sequence[float] | None:
        """Its values in rising order; None if it is continuous."""
        if self.kind == "integers":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        steps = range(round((self.high - self.low) / self.step) + 1)
        return [round(self.low + position * self.step, 15) for position in steps]

    def parameter(self, answer: float) -> float:
        """What Optuna stores for one of its numbers."""
        return answer


Node = Constant | Branch | Choice | Range
Question = Choice | Range
Choose = Callable[[Any], Any]  # an option of a Choice, or a number of a Range


@dataclass(frozen=True)
class Space:
    """A parsed search space: hashable, comparable and picklable."""

    knobs: tuple[tuple[str, Node], ...]


class Trial(Protocol):
    """What `suggest` asks of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...


def decision_order() -> tuple[str, ...]:
    """All knobs, in the order in which a configuration decides them."""
    return (*_FIRST, *(name for name in KNOBS if name not in _FIRST))


def resolve(space: Space, choose: Choose) -> dict[str, Any]:
    """One configuration, flat. `choose(question)` returns an option of a Choice (a Constant or a
    Branch) or a number of a Range.

    Questions come in `decision_order`; a Choice with a single option is not asked.
    """
    scope = dict(space.knobs)
    configuration: dict[str, Any] = {}
    completed = defaults()
    for name in decision_order():
        if name in scope and KNOBS[name].read_by(completed):
            answer = _answer(scope[name], choose)
            configuration[name] = completed[name] = _plain(answer.value)
            scope.update(answer.knobs if isinstance(answer, Branch) else ())
    return configuration


def recorded(space: Space, choose: Choose) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `resolve`, with the parameters by which `suggest` comes to that configuration."""
    parameters: dict[str, Any] = {}

    def choose_and_record(question: Any) -> Any:
        answer = choose(question)
        parameters[question.name] = question.parameter(answer)
        return answer

    return resolve(space, choose_and_record), parameters


def sample(space: Space, rng: random.Random) -> dict[str, Any]:
    """A configuration drawn at random; every question is drawn on its own."""
    return resolve(space, at_random(rng))


def at_random(rng: random.Random) -> Choose:
    """Answers each question by a draw of its own."""

    def choose(question: Question) -> Any:
        if isinstance(question, Range) and question.answers is None:
            return _draw(question, rng)
        return rng.choice(question.answers or ())

    return choose


def suggest(space: Space, trial: Trial) -> dict[str, Any]:
    """The configuration that an Optuna trial suggests, one parameter per question asked."""

    def choose(question: Question) -> Any:
        if isinstance(question, Range):
            return _suggest_number(question, trial)
        labels = question.labels
        return question.options[labels.index(trial.suggest_categorical(question.name, labels))]

    return resolve(space, choose)


def grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every configuration, each once; the last knob of `decision_order` varies fastest.

    Raises InputError, at once, if the space holds a continuous range.
    """
    continuous = [question for question in questions(space) if question.answers is None]
    if continuous:
        raise InputError([_no_grid(question) for question in continuous])
    return (configuration for configuration, _ in combinations(space, lambda question: True))


def combinations(
    space: Space, spread: Callable[[Question], bool]
) -> Iterator[tuple[dict[str, Any], list[Question]]]:
    """Every combination of the answers to the questions that are `spread`, each with the
    questions left over: those take their first answer, and a continuous range is left out.
    """
    digits: list[int] = []  # which answer each spread question gets: an odometer
    while True:
        sizes: list[int] = []
        left: list[Question] = []
        configuration = resolve(space, _odometer(digits, sizes, left, spread))
        open_ = {question.knob for question in left if question.answers is None}
        yield {name: configuration[name] for name in configuration if name not in open_}, left
        while digits and digits[-1] + 1 == sizes[len(digits) - 1]:
            digits.pop()
        if not digits:
            return
        digits[-1] += 1


def questions(space: Space) -> Iterator[Question]:
    """Every Choice and Range of the space, inside branches too."""
    return _questions(space.knobs)


def knob_names(space: Space) -> set[str]:
    """The knobs that the space sets, inside branches too."""
    return _knob_names(space.knobs)


def is_read(name: str, configuration: Mapping[str, Any]) -> bool:
    """Whether a trial of this configuration, completed with defaults, reads the knob."""
    return KNOBS[name].read_by({**defaults(), **configuration})


def same(one: Any, other: Any) -> bool:
    """Equal in value: 8 is 8.0, and 3 * 0.1 is 0.3, but true is not 1."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9)
    return bool(one == other)


def _answer(node: Node, choose: Choose) -> Constant | Branch:
    if isinstance(node, Range):
        return Constant(choose(node))
    if isinstance(node, Choice):
        chosen: Constant | Branch
        chosen = node.options[0] if len(node.options) == 1 else choose(node)
        return chosen
    return node


def _odometer(
    digits: list[int], sizes: list[int], left: list[Question], spread: Callable[[Question], bool]
) -> Choose:
    def choose(question: Question) -> Any:
        answers = question.answers
        if answers is None or not spread(question):
            left.append(question)
            return answers[0] if answers else math.nan
        sizes.append(len(answers))
        if len(sizes) > len(digits):
            digits.append(0)
        return answers[digits[len(sizes) - 1]]

    return choose


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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


def _no_grid(question: Question) -> str:
    return (
        f"space.{question.path}: a grid search can't walk a continuous range. "
        "Give a list of values or a step, or use search.algorithm: tpe or random."
    )


def _inside(node: Node) -> Iterable[tuple[tuple[str, Node], ...]]:
    options = node.options if isinstance(node, Choice) else (node,)
    return [option.knobs for option in options if isinstance(option, Branch)]


def _questions(knobs: tuple[tuple[str, Node], ...]) -> Iterator[Question]:
    for _, node in knobs:
        if isinstance(node, Choice | Range):
            yield node
        for inner in _inside(node):
            yield from _questions(inner)


def _knob_names(knobs: tuple[tuple[str, Node], ...]) -> set[str]:
    names = {name for name, _ in knobs}
    return names.union(*(_knob_names(inner) for _, node in knobs for inner in _inside(node)))
