"""METHODS, and the method that a trial's hyperparameters name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.methods.adapters import LoRA
from trainables.methods.method import Method, Untrained
from trainables.methods.weights import Full

UNTRAINED = "untrained"  # the method of baselines
METHODS: dict[str, type[Method]] = {"lora": LoRA, "full": Full, UNTRAINED: Untrained}


def make_method(knobs: Mapping[str, Any]) -> Method:
    """The method that canonical knobs name, with its hyperparameters from them."""
    chosen = METHODS[knobs["method"]]
    return chosen(**{name: _frozen(knobs[name]) for name in chosen.hyperparameters()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
