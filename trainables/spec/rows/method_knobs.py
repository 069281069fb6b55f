"""METHOD_ROWS: the rows of KNOBS that are hyperparameters of methods, their classes' fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainables.methods.registry import METHODS
from trainables.methods.target_modules import ALL_LINEAR
from trainables.spec.checks import above, boolean, whole, within
from trainables.spec.knob import Knob
from trainables.spec.knob_values import (
    are_modules,
    as_modules,
    modules,
    modules_at_least,
    modules_label,
)
from trainables.spec.memory_effect import NONE, UP, MemoryEffect
from trainables.spec.memory_effect import above as memory_above


def _field_of(field: str) -> Callable[[Mapping[str, Any]], bool]:
    def read_by(configuration: Mapping[str, Any]) -> bool:
        return field in METHODS[configuration["method"]].hyperparameters()

    return read_by


METHOD_ROWS: dict[str, Knob] = {
    "rank": Knob(8, whole(1), int, _field_of("rank"), memory=UP, label="r{rank}", plan_place=0),
    "alpha": Knob(
        16,
        above(0),
        float,
        _field_of("alpha"),
        memory=NONE,
        affects_speed=False,
        label="a{alpha:g}",
    ),
    "dropout": Knob(
        0.0,
        within(0, 0.99),
        float,
        _field_of("dropout"),
        memory=memory_above(0),  # its masks are kept for the backward pass
        simulated=bool,
        activations=lambda value: 1.1 if value else 1.0,
        varied_label="drop{dropout:.2g}",
    ),
    "target_modules": Knob(
        ALL_LINEAR,
        modules,
        as_modules,
        _field_of("target_modules"),
        is_one_value=are_modules,
        memory=MemoryEffect(modules_at_least),
        varied_label=modules_label,
    ),
    "blocks": Knob(
        2,
        whole(1),
        int,
        _field_of("blocks"),
        memory=UP,
        simulated_if_read=True,
        has_column=False,
        label="last{blocks}",
        plan_place=0,
    ),
    "train_final_norm": Knob(
        True,
        boolean,
        bool,
        _field_of("train_final_norm"),
        memory=UP,
        simulated_if_read=True,
        has_column=False,
        varied_label="norm-{train_final_norm}",
    ),
    "train_head": Knob(
        False,
        boolean,
        bool,
        _field_of("train_head"),
        memory=UP,
        simulated_if_read=True,
        has_column=False,
        varied_label="head",
    ),
}
