"""The benchmark of the driver at scale: its space is valid, and growth of the cost is detected."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import pytest

from benchmarks.driver_at_scale import End, growth, report, space
from orchestrator.config.reader import from_mapping


def _ends(cost: Callable[[int], float], *, trials: int = 200) -> list[End]:
    return [End(2 * spent, spent) for spent in accumulate(cost(trial) for trial in range(trials))]


def test_its_space_has_configurations_enough() -> None:
    config = from_mapping(space(trials=200, workers=16))
    assert config.search.trials == 200
    assert config.resources.concurrent_trials == 16


def test_a_driver_whose_trials_cost_the_same_is_flat() -> None:
    assert growth(_ends(lambda trial: 0.05)) == pytest.approx(1.0)


def test_a_driver_that_looks_through_all_that_is_done_is_not() -> None:
    assert growth(_ends(lambda trial: 0.05 + 0.001 * trial)) > 2


def test_the_report_has_a_line_for_each_fifth() -> None:
    shown = report(_ends(lambda trial: 0.05), workers=16, whole_seconds=60)
    assert "| 1 to 40 | 0.100 | 0.100 | 0.050 |" in shown
    assert "| 161 to 200 | 0.100 | 0.100 | 0.050 |" in shown
    assert "200 trials on 16 logical workers" in shown
