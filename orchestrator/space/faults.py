"""Faults of a search space in YAML: what is wrong with a name, a value or a range, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.space.foreign_names import meant
from orchestrator.space.tree import decision_order, is_read
from trainables.errors import did_you_mean
from trainables.methods.registry import METHODS
from trainables.spec import knobs
from trainables.spec.checks import is_finite
from trainables.spec.decoding import STRATEGIES
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import KNOBS
from trainables.spec.quantization import QUANTIZATIONS

RANGES = ("log_uniform", "uniform", "integers")
LITERAL = "value"
_MOST_NUMBERS = 2**53  # each of them is still its own float


def wrong_name(name: object, enclosing: Mapping[str, Any]) -> str | None:
    if name in KNOBS and _fits(str(name), enclosing):
        return None
    allowed = [knob for knob in decision_order() if _fits(knob, enclosing)]
    if name not in KNOBS:
        return f"unknown key.{meant(name, allowed)}"
    around = ", ".join(f"{knob} {value}" for knob, value in enclosing.items())
    if not _comes_later(str(name), enclosing):
        return f"{name} is decided before {list(enclosing)[-1]}: write it outside of this branch."
    return f"{name} is not read with {around}.{did_you_mean(name, allowed)}"


def _fits(knob: str, enclosing: Mapping[str, Any]) -> bool:
    """Whether some trial inside these branches reads the knob, and decides it after them."""
    bases = [
        {"method": method, "quantization": quantization, "batch_size": batch_size}
        | {"decoding": decoding, **enclosing}
        for method in METHODS
        for quantization in QUANTIZATIONS
        for batch_size in (1, AUTO)
        for decoding in STRATEGIES
    ]
    return _comes_later(knob, enclosing) and any(is_read(knob, base) for base in bases)


def _comes_later(knob: str, enclosing: Mapping[str, Any]) -> bool:
    order = decision_order()
    return all(order.index(knob) > order.index(outer) for outer in enclosing)


def wrong_value(knob: str, value: object) -> str | None:
    wrong = knobs.check(knob, value)
    if wrong is None and knob == "method" and METHODS[str(value)].is_baseline:
        return f"{value} is run by itself on every model and quantization. Leave it out."
    return wrong


def not_one_key(value: Mapping[Any, object]) -> str:
    if not value:
        return "the mapping is empty."
    keys = ", ".join(f"{{{key}: ...}}" for key in value)
    return f"a mapping with {len(value)} keys is not a choice. For a choice of branches: [{keys}]."


def wrong_key(key: object, content: object) -> str | None:
    if key in RANGES:
        return f"{{{key}: ...}} stands in a list. A knob is either a list of values or one range."
    if content is None or isinstance(content, Mapping):
        return None
    kinds = (*RANGES, LITERAL)
    return f"{{{key}: ...}} is neither a range, a literal nor a branch.{did_you_mean(key, kinds)}"


def wrong_range(knob: str, kind: str, bounds: object) -> str | None:
    with_step, whole = kind != "log_uniform", kind == "integers"
    if not isinstance(bounds, list) or len(bounds) not in ((2, 3) if with_step else (2,)):
        return f"got {bounds!r}; needs [low, high]{' or [low, high, step]' if with_step else ''}."
    number = int if whole else int | float
    wrong = [bound for bound in bounds if not _is_number(bound, number)]
    if wrong:
        return f"got {wrong[0]!r} in {bounds!r}; needs {'whole ' if whole else ''}numbers."
    low, high = bounds[:2]
    if not low < high:
        return f"got {bounds!r}, which is upside down or empty; needs low < high."
    if len(bounds) == 3 and not 0 < bounds[2] <= high - low:
        return f"got {bounds[2]!r} as step; needs a step > 0 and <= {high - low:g}."
    if kind == "log_uniform" and low <= 0:
        return f"got {low!r} as low end; a logarithmic range needs low > 0."
    return _wrong_ends(knob, kind, [low, high]) or _too_many(kind, bounds)


def _is_number(bound: Any, kind: Any) -> bool:
    """Whether it is of this type, and a whole number not too large for a float."""
    is_kind = isinstance(bound, kind) and not isinstance(bound, bool)
    return is_kind and (isinstance(bound, float) or is_finite(bound))


def _wrong_ends(knob: str, kind: str, ends: list[Any]) -> str | None:
    if kind == "integers":
        return next((wrong for end in ends if (wrong := knobs.check(knob, end))), None)
    wrong = next((wrong for end in ends if (wrong := knobs.check(knob, float(end)))), None)
    if wrong and not any(knobs.check(knob, end) for end in ends):
        return f"{knob} takes whole numbers only. Use {{integers: [low, high]}} or a list."
    return wrong


def _too_many(kind: str, bounds: list[Any]) -> str | None:
    """What is wrong with a range of so many numbers that a float can't tell them apart, or None."""
    steps = [*bounds[2:], *([1] if kind == "integers" else [])]
    if not steps or bounds[1] - bounds[0] < steps[0] * _MOST_NUMBERS:
        return None
    return f"got {bounds!r}, which has more than 2^53 numbers; needs a larger step."


def hint(knob: str, value: object) -> str:
    """A remark on what YAML may have made of the value that the knob refuses, or ''."""
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
