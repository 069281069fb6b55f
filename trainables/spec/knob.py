"""Knob: one row of KNOBS, all that the project knows about one hyperparameter of a trial."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.spec.checks import Check
from trainables.spec.memory_effect import CELL, MemoryEffect

Knobs = Mapping[str, Any]
Label = str | Callable[[Knobs], str]
"""A format string for canonical knobs, as "r{rank}", or a function of them."""

_DECIMALS = re.compile(r":\.(\d+)")


def never(value: Any) -> bool:
    del value
    return False


def itself(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Knob:
    """One hyperparameter: its values, and what other parts of the project must know of it.

    `check` returns what is wrong with a value, `convert` makes an accepted value canonical.
    `read_by`: whether a trial with these values, defaults filled in, reads the knob.
    `unsaid`: the default is not written down, so that trials from before the knob existed keep
    their configuration, and with it their id.
    """

    default: Any
    check: Check
    convert: Callable[[Any], Any]
    read_by: Callable[[Knobs], bool]
    unsaid: bool = False
    has_column: bool = True  # results.csv has its column even if no trial has a value
    of_task: bool = False  # an option of the tasks that name it in `Task.knobs`
    switches: Callable[[Any], bool] = never  # values by which other knobs are read or not
    is_repetition: bool = False  # another value is another draw of the same configuration
    is_one_value: Callable[[Sequence[Any]], bool] = never
    """Whether a list that is written for the knob is one value of it, and not a choice."""

    # Memory and speed. The default values are right for any knob, but compare only equal values.
    memory: MemoryEffect = CELL
    affects_speed: bool = True
    loads_base: bool = False  # trials share a loaded base only if they have the same value
    simulated: Callable[[Any], Any] | None = itself
    """What of a value a simulated step depends on besides its batches; None: on nothing of it."""
    activations: Callable[[Any], float] | None = None
    """By what factor a value scales activations, roughly; orders a plan's configurations."""
    states: Callable[[Any], float] | None = None
    """The same for the numbers that are kept per trained parameter."""

    # Words and tables.
    label: Label = ""
    """The knob's part of every trial's label; "" for none."""
    varied_label: Label | None = ""
    """Its part of the labels of a sweep that varies it, if it is not in every label: "" for its
    value, a number's after its name, True as its name; None if other labels tell its value. False
    and 0.0, by which something is off, are not told."""
    method_place: int | None = None
    """The label also follows the method's name, at this place among those that do."""
    plan_place: int | None = None
    """The place of the value in a line of a dry run; None: it is not shown there."""

    def is_written(self, given: Knobs, value: Any) -> bool:
        """Whether a canonical configuration made of `given` holds the knob with this value."""
        return self.read_by(given) and not self.is_unsaid(value)

    def is_unsaid(self, value: Any) -> bool:
        return self.unsaid and bool(value == self.default)

    @property
    def is_always_told(self) -> bool:
        """Whether every trial's label tells the knob's value."""
        return bool(self.label) or self.varied_label is None

    def label_of(self, name: str, knobs: Knobs, *, more_decimals: int = 0) -> str:
        """Its part, as the knob `name`, of the label of a trial with these knobs.

        `more_decimals` are added to those that a label has for a rounded number.
        """
        value = knobs[name]
        if not self.label and isinstance(value, bool | float) and not value:
            return ""
        label = self.label or self.varied_label or _usual_label(name, value)
        if not isinstance(label, str):
            return label(knobs)
        finer = _DECIMALS.sub(lambda found: f":.{int(found[1]) + more_decimals}", label)
        return finer.format_map(knobs)


def _usual_label(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name
    if isinstance(value, float):
        return f"{name}{{{name}:.2g}}"
    return f"{{{name}}}" if isinstance(value, str) else f"{name}{{{name}}}"
