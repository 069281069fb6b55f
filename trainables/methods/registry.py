"""METHODS, and the method that a trial's hyperparameters name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.method import Method, Untrained
from trainables.methods.parts import Bias, Partial
from trainables.methods.prompting import Prompting
from trainables.methods.weights import Full

UNTRAINED = "untrained"  # the method of baselines
METHODS: dict[str, type[Method]] = {
    "lora": LoRA,
    "full": Full,
    "partial": Partial,
    "bias": Bias,
    "prompting": Prompting,
    UNTRAINED: Untrained,
}


def make_method(knobs: Mapping[str, Any]) -> Method:
    """The method that canonical knobs name, with its hyperparameters from them.

    A hyperparameter that the knobs leave unsaid has its default. Raises InputError for a method of
    a later version of this project.
    """
    chosen = METHODS.get(knobs["method"])
    if chosen is None:
        raise InputError(
            f"method: this version has no {knobs['method']}; it has {', '.join(METHODS)}. Use the "
            "version that ran the trial."
        )
    written = (name for name in chosen.hyperparameters() if name in knobs)
    return chosen(**{name: _frozen(knobs[name]) for name in written})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
