"""Whether a command resumes the sweep that was started, and the differences if it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.changes import differences
from orchestrator.config.reader import from_mapping, load_config

FILE = """
task: finqa
space:
  model: [a, b]
  method: [{lora: {rank: [4, 8], alpha: 16}}]
  learning_rate: {log_uniform: [1.0e-4, 1.0e-2]}
budget: {train_examples: 640, eval_examples: 100}
search: {trials: 4}
"""


def _differences(folder: Path, *overrides: str) -> list[str]:
    path = folder / "x.yaml"
    path.write_text(FILE, encoding="utf-8")
    return differences(load_config(path), load_config(path, overrides))


@pytest.mark.parametrize("name", ["sweep_hours", "trial_hours", "silent_minutes"])
def test_limits_may_change_from_one_start_to_the_next(tmp_path: Path, name: str) -> None:
    assert _differences(tmp_path, f"limits.{name}=2") == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("space.method.lora.rank=[4, 16]", "space.method.lora.rank: was [4, 8], now [4, 16]"),
        ("space.method.lora.dropout=0.1", "space.method.lora.dropout: was not set, now 0.1"),
        ("space.model=[a]", "space.model: was [a, b], now [a]"),
        ("exclude=[{rank: 4}]", "exclude: was [], now [{rank: 4}]"),
        ("scheduler=none", "scheduler: was not set, now none"),
        ("budget.seed=3", "budget.seed: was 0, now 3"),
        ("data.context=full", "data.context: was not set, now full"),
    ],
)
def test_a_difference_names_its_path_and_both_values(
    tmp_path: Path, override: str, line: str
) -> None:
    assert line in _differences(tmp_path, override)


def test_a_range_that_became_a_choice_is_two_lines(tmp_path: Path) -> None:
    assert _differences(tmp_path, "space.learning_rate=[0.001]") == [
        "space.learning_rate.log_uniform: was [0.0001, 0.01], now not set",
        "space.learning_rate: was not set, now [0.001]",
    ]


def test_a_branch_more_shows_as_an_option_and_its_knobs(tmp_path: Path) -> None:
    assert _differences(tmp_path, "space.model.b={batch_size: 2}") == [
        "space.model.b.batch_size: was not set, now 2",
    ]


@pytest.mark.parametrize(
    "override",
    [
        "search.trials=400",
        "resources.cpus_per_trial=2",
        "execution.checkpoint_minutes=1",
        "space.method.lora.alpha=16.0",
        "scheduler.asha.reduction=4",
        "objective=em_acc",
    ],
)
def test_how_many_trials_and_how_they_are_run_may_change(tmp_path: Path, override: str) -> None:
    assert _differences(tmp_path, override) == []


def test_a_sweep_does_not_differ_from_itself() -> None:
    value: dict[str, Any] = {
        "task": "finqa",
        "data": {"generated": {}},
        "space": {"model": ["a", {"b": {"rank": 4}}], "target_modules": {"value": ["q", "v"]}},
        "budget": {"train_examples": 640, "eval_examples": 100},
        "search": {"trials": 4},
    }
    assert differences(from_mapping(value), from_mapping(value)) == []
