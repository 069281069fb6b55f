"""The grammar of a search space: YAML's values to a Space and back.

A list is a choice; a one-key mapping is a branch (`lora: {...}`), a range (`log_uniform: [lo,
hi]`) or, as `value: ...`, taken literally; anything else is itself. search_spaces/README.md
shows it by example.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.space.tree import (
    Branch,
    Choice,
    Constant,
    Node,
    Range,
    Space,
    decision_order,
    is_read,
    same,
)
from trainables.errors import InputError, did_you_mean
from trainables.methods.registry import METHODS
from trainables.spec import knobs
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import KNOBS
from trainables.spec.quantization import QUANTIZATIONS

RANGES = ("log_uniform", "uniform", "integers")
_LITERAL = "value"


def parse_space(value: object, where: str = "space") -> Space:
    """The Space that YAML's `value` describes; raises InputError with every fault in it."""
    parser = _Parser(where)
    parsed = parser.scope(value, path="", enclosing={})
    if isinstance(value, Mapping) and "model" not in value:
        parser.fault("model", "missing. Name at least one model: a folder or a hub id.")
    if parser.faults:
        raise InputError(parser.faults)
    return Space(parsed)


def render(space: Space) -> dict[str, Any]:
    """YAML's value for a Space: parse_space(render(space)) == space."""
    return {name: _render(node) for name, node in space.knobs}


class _Parser:
    """Descends into the value and notes every fault with its path."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.faults: list[str] = []

    def fault(self, path: str, message: str) -> None:
        place = f"{self.where}.{path}" if path else self.where
        self.faults.append(f"{place}: {message}")

    def scope(
        self, value: object, *, path: str, enclosing: Mapping[str, Any]
    ) -> tuple[tuple[str, Node], ...]:
        """The knobs of a mapping; `enclosing` holds the values of the branches around it."""
        if not isinstance(value, Mapping):
            self.fault(path, f"got {value!r}; needs a mapping of knobs to their values.")
            return ()
        parsed = []
        for name, content in value.items():
            inner = f"{path}.{name}" if path else str(name)
            wrong = _wrong_name(name, enclosing)
            if wrong:
                self.fault(inner, wrong)
            elif (node := self.node(name, content, path=inner, enclosing=enclosing)) is not None:
                parsed.append((str(name), node))
        return tuple(parsed)

    def node(
        self, knob: str, value: object, *, path: str, enclosing: Mapping[str, Any]
    ) -> Node | None:
        if isinstance(value, list):
            return self.choice(knob, value, path=path, enclosing=enclosing)
        if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in RANGES:
            return self.range(knob, value, path=path)
        return self.option(knob, value, path=path, enclosing=enclosing)

    def choice(
        self, knob: str, values: list[object], *, path: str, enclosing: Mapping[str, Any]
    ) -> Choice | None:
        if not values:
            self.fault(path, "the list is empty. A list is a choice: give at least one value.")
            return None
        parsed = [self.option(knob, value, path=path, enclosing=enclosing) for value in values]
        options = tuple(option for option in parsed if option is not None)
        for position, option in enumerate(options):
            if any(same(option.value, other.value) for other in options[:position]):
                self.fault(path, f"{option.value!r} is there twice. Remove one.")
        return Choice(knob, path, options) if options else None

    def option(
        self, knob: str, value: object, *, path: str, enclosing: Mapping[str, Any]
    ) -> Constant | Branch | None:
        if isinstance(value, list):
            self.fault(
                path, f"{value!r} is a list in a list. For a literal list: {{value: [...]}}."
            )
            return None
        if isinstance(value, Mapping):
            return self.mapping(knob, value, path=path, enclosing=enclosing)
        return self.constant(knob, value, path=path)

    def constant(self, knob: str, value: object, *, path: str) -> Constant | None:
        wrong = _wrong_value(knob, value)
        if wrong:
            self.fault(path, wrong + _hint(knob, value))
            return None
        return Constant(tuple(value) if isinstance(value, list) else value)

    def mapping(
        self, knob: str, value: Mapping[Any, object], *, path: str, enclosing: Mapping[str, Any]
    ) -> Constant | Branch | None:
        if len(value) != 1:
            self.fault(path, _not_one_key(value))
            return None
        key, content = next(iter(value.items()))
        if key == _LITERAL:
            return self.constant(knob, content, path=path)
        wrong = _wrong_key(key, content) or _wrong_value(knob, key)
        if wrong:
            self.fault(path, wrong)
            return None
        inner = self.scope(
            {} if content is None else content,
            path=f"{path}.{key}",
            enclosing={**enclosing, knob: key},
        )
        return Branch(key, inner)

    def range(self, knob: str, value: Mapping[str, object], *, path: str) -> Range | None:
        kind, bounds = next(iter(value.items()))
        wrong = _wrong_range(knob, kind, bounds)
        if wrong or not isinstance(bounds, list):
            self.fault(f"{path}.{kind}", str(wrong))
            return None
        number = int if kind == "integers" else float
        low, high = (number(bound) for bound in bounds[:2])
        if len(bounds) == 2:
            return Range(knob, path, kind, low, high)
        step = number(bounds[2])
        return Range(knob, path, kind, low, _last(low, high, step), step)


def _last(low: float, high: float, step: float) -> float:
    """The highest low + k * step that is not above high."""
    if isinstance(low, int):
        return high - (high - low) % step
    return round(low + math.floor((high - low) / step + 1e-9) * step, 15)


def _wrong_name(name: object, enclosing: Mapping[str, Any]) -> str | None:
    allowed = [knob for knob in decision_order() if _fits(knob, enclosing)]
    if name in allowed:
        return None
    if name not in KNOBS:
        return f"unknown key.{did_you_mean(name, allowed)}"
    around = ", ".join(f"{knob} {value}" for knob, value in enclosing.items())
    if not _comes_later(str(name), enclosing):
        return f"{name} is decided before {list(enclosing)[-1]}: write it outside of this branch."
    return f"{name} is not read with {around}.{did_you_mean(name, allowed)}"


def _fits(knob: str, enclosing: Mapping[str, Any]) -> bool:
    """Whether some trial inside these branches reads the knob and has it still open."""
    bases = [
        {"method": method, "quantization": quantization, "batch_size": batch_size, **enclosing}
        for method in METHODS
        for quantization in QUANTIZATIONS
        for batch_size in (1, AUTO)
    ]
    return _comes_later(knob, enclosing) and any(is_read(knob, base) for base in bases)


def _comes_later(knob: str, enclosing: Mapping[str, Any]) -> bool:
    order = decision_order()
    return all(order.index(knob) > order.index(outer) for outer in enclosing)


def _wrong_value(knob: str, value: object) -> str | None:
    wrong = knobs.check(knob, value)
    if wrong is None and knob == "method" and not METHODS[str(value)].trains:
        return f"{value} is run by itself on every model and quantization. Leave it out."
    return wrong


def _not_one_key(value: Mapping[Any, object]) -> str:
    if not value:
        return "the mapping is empty."
    keys = ", ".join(f"{{{key}: ...}}" for key in value)
    return f"a mapping with {len(value)} keys is not a choice. For a choice of branches: [{keys}]."


def _wrong_key(key: object, content: object) -> str | None:
    if key in RANGES:
        return f"{{{key}: ...}} stands in a list. A knob is either a list of values or one range."
    if content is None or isinstance(content, Mapping):
        return None
    kinds = (*RANGES, _LITERAL)
    return f"{{{key}: ...}} is neither a range, a literal nor a branch.{did_you_mean(key, kinds)}"


def _wrong_range(knob: str, kind: str, bounds: object) -> str | None:
    with_step, whole = kind != "log_uniform", kind == "integers"
    if not isinstance(bounds, list) or len(bounds) not in ((2, 3) if with_step else (2,)):
        return f"got {bounds!r}; needs [low, high]{' or [low, high, step]' if with_step else ''}."
    number = int if whole else int | float
    wrong = [bound for bound in bounds if isinstance(bound, bool) or not isinstance(bound, number)]
    if wrong:
        return f"got {wrong[0]!r} in {bounds!r}; needs {'whole ' if whole else ''}numbers."
    low, high = bounds[:2]
    if not low < high:
        return f"got {bounds!r}, which is upside down or empty; needs low < high."
    if len(bounds) == 3 and not 0 < bounds[2] <= high - low:
        return f"got {bounds[2]!r} as step; needs a step > 0 and <= {high - low:g}."
    if kind == "log_uniform" and low <= 0:
        return f"got {low!r} as low end; a logarithmic range needs low > 0."
    return _wrong_ends(knob, kind, [low, high])


def _wrong_ends(knob: str, kind: str, ends: list[Any]) -> str | None:
    if kind == "integers":
        return next((wrong for end in ends if (wrong := knobs.check(knob, end))), None)
    wrong = next((wrong for end in ends if (wrong := knobs.check(knob, float(end)))), None)
    if wrong and not any(knobs.check(knob, end) for end in ends):
        return f"{knob} takes whole numbers only. Use {{integers: [low, high]}} or a list."
    return wrong


def _hint(knob: str, value: object) -> str:
    """What YAML may have done to a value that the knob refuses."""
    if value is None or isinstance(value, bool):
        return " YAML reads a bare null, ~, no or off as nothing or false: put a name in quotes."
    if isinstance(value, str) and _number(value) is not None:
        number = _number(value)
        return " That is text: remove the quotes." if knobs.check(knob, number) is None else ""
    return ""


def _number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _render(node: Node) -> Any:
    if isinstance(node, Choice):
        return [_render(option) for option in node.options]
    if isinstance(node, Range):
        step = [] if node.step is None else [node.step]
        return {node.kind: [node.low, node.high, *step]}
    if isinstance(node, Branch):
        return {node.value: {name: _render(inner) for name, inner in node.knobs}}
    return {_LITERAL: list(node.value)} if isinstance(node.value, tuple) else node.value
