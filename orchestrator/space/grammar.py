"""The grammar of a search space: from the values of YAML to a Space and back.

A list is a choice, unless the knob takes it as one value (names of modules); a one-key mapping is a
branch (`lora: {...}`), a range (`log_uniform: [lo, hi]`) or, as `value: ...`, a literal; any other
value is a constant. search_spaces/README.md has examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.space.faults import (
    LITERAL,
    RANGES,
    hint,
    not_one_key,
    wrong_key,
    wrong_name,
    wrong_range,
    wrong_value,
)
from orchestrator.space.tree import (
    Branch,
    Choice,
    Constant,
    Node,
    Range,
    Space,
    same,
)
from trainables.errors import InputError
from trainables.spec.knobs import is_one_value


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
    """Parses a value recursively and collects every fault with its path."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.faults: list[str] = []

    def fault(self, path: str, message: str) -> None:
        place = f"{self.where}.{path}" if path else self.where
        self.faults.append(f"{place}: {message}")

    def scope(
        self, value: object, *, path: str, enclosing: Mapping[str, Any]
    ) -> tuple[tuple[str, Node], ...]:
        """The knobs of a mapping inside the branches `enclosing`, by knob."""
        if not isinstance(value, Mapping):
            self.fault(path, f"got {value!r}; needs a mapping of knobs to their values.")
            return ()
        parsed = []
        for name, content in value.items():
            inner = f"{path}.{name}" if path else str(name)
            wrong = wrong_name(name, enclosing)
            if wrong:
                self.fault(inner, wrong)
            elif (node := self.node(name, content, path=inner, enclosing=enclosing)) is not None:
                parsed.append((str(name), node))
        return tuple(parsed)

    def node(
        self, knob: str, value: object, *, path: str, enclosing: Mapping[str, Any]
    ) -> Node | None:
        if isinstance(value, list) and not is_one_value(knob, value):
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
        if isinstance(value, list) and not is_one_value(knob, value):
            self.fault(
                path, f"{value!r} is a list in a list. For a literal list: {{value: [...]}}."
            )
            return None
        if isinstance(value, Mapping):
            return self.mapping(knob, value, path=path, enclosing=enclosing)
        return self.constant(knob, value, path=path)

    def constant(self, knob: str, value: object, *, path: str) -> Constant | None:
        wrong = wrong_value(knob, value)
        if wrong:
            self.fault(path, wrong + hint(knob, value))
            return None
        return Constant(tuple(value) if isinstance(value, list) else value)

    def mapping(
        self, knob: str, value: Mapping[Any, object], *, path: str, enclosing: Mapping[str, Any]
    ) -> Constant | Branch | None:
        if len(value) != 1:
            self.fault(path, not_one_key(value))
            return None
        key, content = next(iter(value.items()))
        if key == LITERAL:
            return self.constant(knob, content, path=path)
        wrong = wrong_key(key, content) or wrong_value(knob, key)
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
        wrong = wrong_range(knob, kind, bounds)
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


def _render(node: Node) -> Any:
    if isinstance(node, Choice):
        return [_render(option) for option in node.options]
    if isinstance(node, Range):
        step = [] if node.step is None else [node.step]
        return {node.kind: [node.low, node.high, *step]}
    if isinstance(node, Branch):
        return {node.value: {name: _render(inner) for name, inner in node.knobs}}
    return {LITERAL: list(node.value)} if isinstance(node.value, tuple) else node.value
