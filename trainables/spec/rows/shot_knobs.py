"""SHOT_ROWS: the rows of KNOBS on the examples that are shown before a question."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from trainables.methods.prompting import DROP, REFUSE, SHOT_SELECTIONS, SHOTS
from trainables.methods.registry import METHODS
from trainables.spec.checks import one_of, whole
from trainables.spec.knob import Knob
from trainables.spec.memory_effect import UP


def _reads_shots(configuration: Mapping[str, Any]) -> bool:
    return "shots" in METHODS[configuration["method"]].hyperparameters()


def _has_shots(configuration: Mapping[str, Any]) -> bool:
    return _reads_shots(configuration) and bool(configuration.get("shots", SHOTS))


def refused_shots(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What canonical knobs say of shots if a question without room for all of them is refused; else
    nothing, for then they fit in any case."""
    if configuration.get("shots_too_long") != REFUSE:
        return {}
    return {name: configuration[name] for name in SHOT_ROWS}


SHOT_ROWS: dict[str, Knob] = {
    "shots": Knob(
        SHOTS,
        whole(0),
        int,
        _reads_shots,
        switches=operator.not_,
        memory=UP,
        simulated=None,
        has_column=False,
        label="{shots}shots",
        plan_place=7,
    ),
    "shot_selection": Knob(
        SHOT_SELECTIONS[0],
        one_of(*SHOT_SELECTIONS),
        str,
        _has_shots,
        simulated=None,
        has_column=False,
    ),
    "shot_seed": Knob(
        0,
        whole(0),
        int,
        _has_shots,
        simulated=None,
        has_column=False,
        varied_label="shots{shot_seed}",
        is_repetition=True,
    ),
    "shots_too_long": Knob(
        DROP,
        one_of(DROP, REFUSE),
        str,
        _has_shots,
        unsaid=True,
        simulated=None,
        has_column=False,
        affects_speed=False,
    ),
}
