"""The trials of a one_factor search, which are all known before it starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.sections import SweepConfig
from orchestrator.runs.trial_label import TrialLabels
from orchestrator.space.one_factor import one_factor
from orchestrator.space.partial import complete
from trainables.spec.knobs import canonical

REFERENCE = "the reference"


@dataclass(frozen=True)
class PlannedTrial:
    """`name` is the label of the reference, and the knobs by which another trial differs."""

    name: str
    configuration: Mapping[str, Any]

    @property
    def cell(self) -> tuple[str, str, str]:
        """Its model, quantization and method."""
        knobs = canonical(self.configuration)
        return str(knobs["model"]), str(knobs["quantization"]), str(knobs["method"])


def one_factor_plan(config: SweepConfig) -> list[PlannedTrial] | None:
    """The trials that the search will run, the reference first; None for another algorithm."""
    if config.search.algorithm != "one_factor":
        return None
    found = {json.dumps(canonical(item), default=str): item for item in _configurations(config)}
    first, *others = found.values()
    label = TrialLabels(config.space).of("", canonical(first))
    named = [PlannedTrial(f"{REFERENCE}: {label}", first)]
    named += [PlannedTrial(_difference(first, other), other) for other in others]
    return named[: config.search.trials]


def _configurations(config: SweepConfig) -> Iterator[Mapping[str, Any]]:
    """Those around the reference, then what `start_with` adds, which runs before them."""
    search = config.search
    around = one_factor(config.space, config.exclude, search.reference)
    yield from (configuration for configuration, _ in around)
    for given in search.start_with:
        yield complete(config.space, config.exclude, given, "search.start_with")[0]


def _difference(reference: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """'rank 4': the knobs that the other has and the reference has not, or with another value."""
    before, after = canonical(reference), canonical(other)
    changed = {name: value for name, value in after.items() if before.get(name) != value}
    return ", ".join(f"{name} {_text(value)}" for name, value in changed.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
