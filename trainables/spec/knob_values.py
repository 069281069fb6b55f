"""Values of single knobs: special ones, their checks, canonical forms, labels and memory order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.methods.target_modules import ALL_LINEAR
from trainables.spec.checks import whole

AUTO = "auto"  # as batch_size: the largest micro-batch that fits
ZERO_STAGES = (0, 2, 3)  # 0: every worker holds all; 2: gradients, optimizer split; 3: weights too


def text(value: Any) -> str | None:
    """Accepts text that is not blank."""
    ok = isinstance(value, str) and value.strip() != ""
    return None if ok else f"got {value!r}; needs a name or a path."


def zero_stage(value: Any) -> str | None:
    """Accepts the ZERO_STAGES."""
    fits = isinstance(value, int) and not isinstance(value, bool) and value in ZERO_STAGES
    return None if fits else f"got {value!r}; needs 0 (none), 2 or 3."


def is_auto(value: Any) -> bool:
    return bool(value == AUTO)


def batch_size(value: Any) -> str | None:
    """Accepts AUTO and whole numbers from 1 on."""
    fits = value == AUTO or whole(1)(value) is None
    return None if fits else f"got {value!r}; needs a whole number >= 1, or {AUTO}."


def as_batch_size(value: Any) -> int | str:
    return AUTO if value == AUTO else int(value)


def smallest_batch(value: Any) -> int:
    """The micro-batch that `value` needs at least: AUTO shrinks to 1 before it is refused."""
    return 1 if value == AUTO else int(value)


def batch_at_least(one: Any, other: Any) -> bool:
    """A memory order (see `MemoryEffect.at_least`)."""
    return smallest_batch(one) >= smallest_batch(other)


def modules(value: Any) -> str | None:
    """Accepts lists of module names, and a name for several modules."""
    names = [value] if isinstance(value, str) else value
    ok = isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names)
    return None if ok else f"got {value!r}; needs '{ALL_LINEAR}' or a list of module names."


def are_modules(values: Sequence[Any]) -> bool:
    """Whether a list is one value, the names of modules, and not a choice between values."""
    return ALL_LINEAR not in values and modules(values) is None


def as_modules(value: Any) -> Any:
    return value if isinstance(value, str) else sorted(value)


def modules_at_least(one: Any, other: Any) -> bool:
    """A memory order: a superset needs more; a name compares with itself only, but "all-linear"
    needs at least as much as anything."""
    if isinstance(one, str) or isinstance(other, str):
        return one in (other, ALL_LINEAR)
    return set(one) >= set(other)


def batch_label(knobs: Mapping[str, Any]) -> str:
    """'b8x2': micro-batches of 8, accumulated twice; 'b16auto': 16 examples per step, in
    micro-batches that fit."""
    if knobs["batch_size"] == AUTO:
        return f"b{knobs.get('effective_batch_size', '')}auto"
    return f"b{knobs['batch_size']}x{knobs.get('gradient_accumulation', 1)}"


def dtype_label(knobs: Mapping[str, Any]) -> str:
    """'bf16' for bfloat16, 'fp32' for float32; another value as it is."""
    value = str(knobs["compute_dtype"])
    return value.replace("bfloat", "bf").replace("float", "fp")


def modules_label(knobs: Mapping[str, Any]) -> str:
    """'all-linear', or 'q+v' for q_proj and v_proj."""
    value = knobs["target_modules"]
    names = [value] if isinstance(value, str) else value
    return "+".join(name.removesuffix("_proj") for name in names)
