"""The metrics of a run follow from the task that its files name, whatever state they are in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.results import read_config, read_metrics, read_trials
from orchestrator.runs.sweep_metrics import sweep_metrics, task_fault
from tests.orchestrator.run_builder import CONFIG, add_trial, new_run, outcomes
from trainables.spec.metric import EVAL_LOSS, TRAIN_PEAK_MEMORY
from trainables.tasks.exact_match import EM_ACC, EM_ACC_STRICT
from trainables.tasks.finqa.task import FinQA
from trainables.tasks.registry import TASKS, find_task


@pytest.mark.parametrize("task", TASKS)
def test_the_task_says_its_metrics_and_the_first_objective_ranks(task: str) -> None:
    metrics = find_task(task).metrics
    assert sweep_metrics({"task": task}).task == metrics
    assert sweep_metrics({"task": task}).ranking == metrics.primary
    several = sweep_metrics({"task": task, "objective": ["eval_loss", metrics.primary.name]})
    compared = next(metric for metric in metrics.specs if metric.is_compared)
    assert several.ranking == EVAL_LOSS and several.per_question == compared
    assert sweep_metrics({"task": task, "objective": "of_later"}).ranking == metrics.primary


def test_a_metric_that_ranks_and_is_kept_for_each_question_is_compared_by() -> None:
    found = sweep_metrics({"task": "finqa", "objective": "em_acc_strict"})
    assert (found.ranking, found.per_question) == (EM_ACC_STRICT, EM_ACC_STRICT)
    found = sweep_metrics({"task": "finqa", "objective": "train_peak_memory_bytes"})
    assert (found.ranking, found.per_question) == (TRAIN_PEAK_MEMORY, EM_ACC)


@pytest.mark.parametrize("task", ["of_another_package", None, 3, ["finqa"]])
def test_of_an_unknown_task_only_the_eval_loss_is_known(task: Any) -> None:
    config = {"task": task, "objective": "elegance"}
    assert "no task named" in (task_fault(config) or "")
    found = sweep_metrics(config)
    assert found.task.specs == (EVAL_LOSS,) and found.ranking == EVAL_LOSS
    assert found.task.verdict is None


def test_a_run_of_an_unknown_task_is_read_and_says_so(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", {**CONFIG, "task": "of_another_package"})
    add_trial(run, right=outcomes(60))
    (result,) = read_trials(run)
    assert result.metrics["em_acc"] == 0.6 and result.primary == EVAL_LOSS
    (warning,) = read_config(run)[1]
    assert "sweep.yaml: task: no task named 'of_another_package'" in warning
    assert "Install the package that has it." in warning


@pytest.mark.parametrize("content", ["", "[", "task: ", "- a", "objective: [em_acc"])
def test_where_the_file_of_the_sweep_is_damaged_a_trial_names_the_task(
    tmp_path: Path, content: str
) -> None:
    run = new_run(tmp_path / "run")
    add_trial(run, right=outcomes(60))
    run.sweep_file.write_text(content)
    assert read_metrics(run).task == FinQA.metrics
    assert read_trials(run)[0].value() == 0.6


def test_a_run_that_says_nothing_has_metrics_too(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    run.sweep_file.unlink()
    assert read_metrics(run).primary == EVAL_LOSS and read_trials(run) == []
