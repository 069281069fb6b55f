"""Settings in which a command differs from the sweep that it resumes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.config.sections import SweepConfig
from orchestrator.config.writer import to_mapping
from orchestrator.space.tree import same

_FREE = (  # may change between starts of one sweep
    "search.trials",
    "resources",
    "execution.checkpoint_minutes",
    "execution.eval_batch_size",
    "limits",
)
_UNSET = object()


def differences(old: SweepConfig, new: SweepConfig) -> list[str]:
    """One line per changed setting, as `space.method.lora.rank: was [4, 8], now [4, 16]`.

    Settings that may change between starts (trials, resources, limits) are left out.
    """
    before, after = _flat(to_mapping(old)), _flat(to_mapping(new))
    paths = [*before, *(path for path in after if path not in before)]
    return [
        f"{path}: was {_text(before.get(path, _UNSET))}, now {_text(after.get(path, _UNSET))}"
        for path in paths
        if not _is_free(path) and not same(before.get(path, _UNSET), after.get(path, _UNSET))
    ]


def _is_free(path: str) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in _FREE)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves by dotted path. A list with branches gives a leaf of the options' names and the
    leaves of each branch."""
    if isinstance(value, Mapping):
        leaves: dict[str, Any] = {} if value or not path else {path: {}}
        for key, inner in value.items():
            leaves |= _flat(inner, f"{path}.{key}" if path else str(key))
        return leaves
    if path.startswith("space.") and isinstance(value, list):
        leaves = {path: [_label(option) for option in value]}
        for option in value:
            leaves |= _flat(option, path) if isinstance(option, Mapping) else {}
        return leaves
    return {path: value}


def _label(option: Any) -> Any:
    return next(iter(option)) if isinstance(option, Mapping) else option


def _text(value: Any) -> str:
    if value is _UNSET:
        return "not set"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_text(inner) for inner in value) + "]"
    return str(value)
