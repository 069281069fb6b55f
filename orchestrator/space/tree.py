"""Space: the configurations that a sweep may try, as a tree of choices and ranges.

`resolve` asks a question for each knob whose value is open and read: a knob inside a branch exists
only there and overrides the top level, and a knob that the chosen method or quantization does not
read is left out. Grid, random and Optuna's define-by-run sampling only differ in how they answer.
`orchestrator.space.grammar` makes a Space from YAML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.spec.checks import is_finite
from trainables.spec.knobs import KNOBS, defaults

_FIRST = ("model", "method", "quantization")  # they decide which other knobs are read


@dataclass(frozen=True)
class Constant:
    """A value that is not varied; a literal list is stored as a tuple."""

    value: Any


@dataclass(frozen=True)
class Branch:
    """A value of a knob that sets other knobs, as `lora: {rank: [4, 8]}`."""

    value: Any
    knobs: tuple[tuple[str, Node], ...]


@dataclass(frozen=True)
class Choice:
    """One of several options, whose values are different."""

    knob: str
    path: str  # below `space`, as `method.lora.rank`
    options: tuple[Constant | Branch, ...]

    @property
    def name(self) -> str:
        """Its name in an Optuna study: unique in its space, the same in every run."""
        return self.path.removeprefix("method.")

    @property
    def answers(self) -> Sequence[Constant | Branch]:
        return self.options

    @property
    def labels(self) -> list[Any]:
        """The options as Optuna can store them: their values, or their positions."""
        values = [option.value for option in self.options]
        are_storable = all(isinstance(value, str | int | float | None) for value in values)
        return values if are_storable else list(range(len(values)))

    def place(self, value: Any) -> int | None:
        """The position of the option with this value, or None."""
        found = (at for at, option in enumerate(self.options) if same(plain(option.value), value))
        return next(found, None)

    def parameter(self, answer: Constant | Branch) -> Any:
        """The value that Optuna stores for one of the options."""
        position = next(place for place, option in enumerate(self.options) if option is answer)
        return self.labels[position]


@dataclass(frozen=True)
class _Steps(Sequence[float]):
    """low + k * step for k = 0, 1, ..., `size` numbers, none of which is kept."""

    low: float
    step: float
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return round(self.low + index * self.step, 15)


@dataclass(frozen=True)
class Range:
    """A number between low and high, both included; with a step, low + k * step up to high."""

    knob: str
    path: str
    kind: str  # one of faults.RANGES
    low: float
    high: float
    step: float | None = None

    @property
    def name(self) -> str:
        """Its name in an Optuna study: unique in its space, the same in every run."""
        return self.path.removeprefix("method.")

    @property
    def answers(self) -> Sequence[float] | None:
        """Its values in ascending order; None if it is continuous."""
        if self.kind == "integers":
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        return _Steps(self.low, self.step, round((self.high - self.low) / self.step) + 1)

    def place(self, value: Any) -> int | None:
        """The position of the answer with this value, or None; it is computed, not looked for."""
        answers = self.answers
        if answers is None or not is_finite(value):
            return None
        place = round((value - self.low) / (self.step or 1))
        return place if 0 <= place < len(answers) and same(answers[place], value) else None

    def parameter(self, answer: float) -> float:
        """The value that Optuna stores for one of its numbers."""
        return answer


Node = Constant | Branch | Choice | Range
Question = Choice | Range
Choose = Callable[[Any], Any]  # returns an option of a Choice, or a number of a Range
Sample = tuple[dict[str, Any], dict[str, Any]]  # a configuration, and its parameters in a study


@dataclass(frozen=True)
class Space:
    """A parsed search space: hashable, comparable and picklable."""

    knobs: tuple[tuple[str, Node], ...]


def decision_order() -> tuple[str, ...]:
    """All knobs, in the order in which a configuration decides them."""
    return (*_FIRST, *(name for name in KNOBS if name not in _FIRST))


def resolve(space: Space, choose: Choose) -> dict[str, Any]:
    """One configuration, flat. `choose(question)` returns an option of a Choice (a Constant or a
    Branch) or a number of a Range.

    Questions come in `decision_order`; a Choice with a single option is not asked.
    """
    return {name: value for name, _, value in settled(space, choose)}


def settled(space: Space, choose: Choose) -> Iterator[tuple[str, Node, Any]]:
    """The knobs of `resolve` as they are decided, each with the node that sets it and its value."""
    scope = dict(space.knobs)
    completed = defaults()
    for name in decision_order():
        if name in scope and KNOBS[name].read_by(completed):
            node = scope[name]
            answer = _answer(node, choose)
            completed[name] = plain(answer.value)
            scope.update(answer.knobs if isinstance(answer, Branch) else ())
            yield name, node, completed[name]


def recorded(space: Space, choose: Choose, decided: dict[str, Any] | None = None) -> Sample:
    """As `resolve`, with the parameters of an Optuna study that stand for the configuration.

    `decided` is emptied and then gets every knob when it is decided, for `choose` to read.
    """
    parameters: dict[str, Any] = {}
    configuration = {} if decided is None else decided
    configuration.clear()

    def choose_and_record(question: Any) -> Any:
        answer = choose(question)
        parameters[question.name] = question.parameter(answer)
        return answer

    for name, _, value in settled(space, choose_and_record):
        configuration[name] = value
    return dict(configuration), parameters


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


def plain(value: Any) -> Any:
    """A literal list, which a node holds as a tuple, as a list; any other value unchanged."""
    return list(value) if isinstance(value, tuple) else value


def branches_of(node: Node) -> list[tuple[tuple[str, Node], ...]]:
    """The knobs of each branch among the options of a node."""
    options = node.options if isinstance(node, Choice) else (node,)
    return [option.knobs for option in options if isinstance(option, Branch)]


def _questions(knobs: tuple[tuple[str, Node], ...]) -> Iterator[Question]:
    for _, node in knobs:
        if isinstance(node, Choice | Range):
            yield node
        for inner in branches_of(node):
            yield from _questions(inner)


def _knob_names(knobs: tuple[tuple[str, Node], ...]) -> set[str]:
    names = {name for name, _ in knobs}
    return names.union(*(_knob_names(inner) for _, node in knobs for inner in branches_of(node)))
