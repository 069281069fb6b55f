"""METHODS, and the method that a trial's hyperparameters name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainables.methods.adapters import LoRA
from trainables.methods.method import Untrained
from trainables.methods.weights import Full

AnyMethod = LoRA | Full | Untrained
METHODS: dict[str, type[AnyMethod]] = {"lora": LoRA, "full": Full, "untrained": Untrained}


def make_method(knobs: Mapping[str, Any]) -> AnyMethod:
    """The method that canonical knobs name, with its hyperparameters from them."""
    chosen = METHODS[knobs["method"]]
    given = {field.name: knobs[field.name] for field in dataclasses.fields(chosen)}
    return chosen(**{name: _frozen(value) for name, value in given.items()})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
