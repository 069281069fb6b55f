"""Representatives: of each cell of a space, a configuration of median memory, and those that
probably need the least and the most.

Nothing is predicted here: a rough score, from the rows of KNOBS and the method, orders a cell's
configurations, so that three predictions describe the cell.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.config.sections import SweepConfig
from orchestrator.space.constraints import cells as all_cells
from orchestrator.space.constraints import count, surviving
from orchestrator.space.enumeration import grid_configurations
from orchestrator.space.sampling import random_configuration
from trainables.methods.registry import make_method
from trainables.spec.knob_values import smallest_batch
from trainables.spec.knobs import KNOBS, canonical, step_examples, with_unsaid

_CELL = ("model", "quantization", "method")
_MOST_ENUMERATED = 4_000  # of a larger space that many configurations are drawn at random

Configuration = Mapping[str, Any]
Cell = tuple[str, str, str]  # model, quantization, method


@dataclass(frozen=True)
class Representatives:
    """Three configurations of a cell, equal if the cell has only one."""

    typical: Configuration
    smallest: Configuration
    largest: Configuration


def representatives(config: SweepConfig) -> dict[Cell, Representatives]:
    """Those of every cell that is not excluded as a whole, in the space's order."""
    cells: dict[Cell, list[tuple[float, Configuration]]] = {
        (cell.model, cell.quantization, cell.method): [] for cell in all_cells(config.space)
    }
    for configuration in _some(config):
        knobs = canonical(configuration)
        cells[_cell_of(knobs)].append((_score(knobs), configuration))
    for configuration in surviving(config.space, config.exclude, _CELL):
        knobs = canonical(configuration)
        if not cells[_cell_of(knobs)]:  # what the rules leave of it is too rare to be drawn
            cells[_cell_of(knobs)].append((_score(knobs), configuration))
    return {cell: _of(scored) for cell, scored in cells.items() if scored}


def _cell_of(knobs: Configuration) -> Cell:
    model, quantization, method = (str(knobs[name]) for name in _CELL)
    return model, quantization, method


def _some(config: SweepConfig) -> Iterator[Configuration]:
    size = count(config.space, config.exclude)
    if size is not None and size <= _MOST_ENUMERATED:
        yield from (found for found, _ in grid_configurations(config.space, config.exclude))
        return
    chance = random.Random(config.search.seed)
    for _ in range(_MOST_ENUMERATED):
        drawn = random_configuration(config.space, chance, config.exclude)
        if drawn is not None:
            yield drawn[0]


def _of(scored: list[tuple[float, Configuration]]) -> Representatives:
    ordered = [configuration for _, configuration in sorted(scored, key=lambda pair: pair[0])]
    return Representatives(ordered[len(ordered) // 2], ordered[0], ordered[-1])


def _score(knobs: Configuration) -> float:
    """Grows with memory, all else alike; its unit is a token of a micro-batch.

    Rounded, so that equal configurations stay equal whatever the order of the factors.
    """
    method = make_method(knobs)
    if not method.trains:
        return method.relative_size()
    rows = [(KNOBS[name], value) for name, value in with_unsaid(knobs).items()]
    activations = math.prod(row.activations(value) for row, value in rows if row.activations)
    states = math.prod(row.states(value) for row, value in rows if row.states)
    is_accumulated = step_examples(knobs) > smallest_batch(knobs["batch_size"])
    return round(activations + states * method.relative_size() + is_accumulated, 6)
