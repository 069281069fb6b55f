"""Representatives: of each cell of a space, the configuration in the middle and those that
probably need the least and the most memory.

Nothing is predicted here: a rough score orders a cell's configurations, so that three predictions
tell what the cell takes.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.sections import SweepConfig
from orchestrator.space.constraints import cells as all_cells
from orchestrator.space.constraints import count, excluded
from orchestrator.space.enumeration import Sample, grid_configurations, random_configuration
from trainables.methods.registry import METHODS
from trainables.spec.knobs import AUTO, canonical, step_examples

_MOST_ENUMERATED = 4_000  # of more configurations so many are drawn

Configuration = Mapping[str, Any]
Cell = tuple[str, str, str]  # model, quantization, method


@dataclass(frozen=True)
class Representatives:
    """Three configurations of a cell; in a cell of one they are the same."""

    typical: Configuration
    smallest: Configuration
    largest: Configuration


def representatives(config: SweepConfig) -> dict[Cell, Representatives]:
    """Those of every cell that the rules leave something of, in the space's order."""
    cells: dict[Cell, list[tuple[float, Configuration]]] = {
        (cell.model, cell.quantization, cell.method): [] for cell in all_cells(config.space)
    }
    for configuration, _ in _some(config):
        if not excluded(configuration, config.exclude):
            knobs = canonical(configuration)
            cell = (str(knobs["model"]), str(knobs["quantization"]), str(knobs["method"]))
            cells[cell].append((_score(knobs), configuration))
    return {cell: _of(scored) for cell, scored in cells.items() if scored}


def _some(config: SweepConfig) -> Iterator[Sample]:
    size = count(config.space)
    if size is not None and size <= _MOST_ENUMERATED:
        return grid_configurations(config.space)
    chance = random.Random(config.search.seed)
    return itertools.islice(
        iter(lambda: random_configuration(config.space, chance), None), _MOST_ENUMERATED
    )


def _of(scored: list[tuple[float, Configuration]]) -> Representatives:
    ordered = [configuration for _, configuration in sorted(scored, key=lambda pair: pair[0])]
    return Representatives(ordered[len(ordered) // 2], ordered[0], ordered[-1])


def _score(knobs: Configuration) -> float:
    """Grows with memory, all else alike; its unit is a token of a micro-batch."""
    if not METHODS[knobs["method"]].trains:
        return 0.0
    rows = 1 if knobs["batch_size"] == AUTO else int(knobs["batch_size"])
    kept = 0.15 if knobs["gradient_checkpointing"] else 1.0
    tokens = rows * int(knobs["sequence_length"]) * kept * (1.1 if knobs.get("dropout") else 1.0)
    states = {"adamw": 4, "sgd": 2}.get(knobs["optimizer"], 3)
    modules = 1.0 if isinstance(knobs.get("target_modules", ""), str) else 0.5
    adapters = states * modules * float(knobs.get("rank", 0))
    held = 1.0 if step_examples(knobs) > rows else 0.0
    return tokens + adapters + held
