"""The objective: one more right answer always ranks higher; only ties are broken by the loss."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.config.objectives import objectives
from trainables.spec.metric import MetricSpec, TaskMetrics
from trainables.tasks.finqa.task import FinQA

OBJECTIVES = objectives(FinQA.metrics)
em_acc_then_loss = OBJECTIVES["em_acc"].value
LOSSES = st.floats(allow_nan=True, allow_infinity=True)


def metrics(right: int, questions: int, loss: float) -> dict[str, float]:
    return {"em_acc": right / questions, "em_acc_questions": questions, "eval_loss": loss}


@given(questions=st.integers(1, 10_000), data=st.data(), one=LOSSES, other=LOSSES)
def test_a_question_more_always_wins(
    questions: int, data: st.DataObject, one: float, other: float
) -> None:
    right = data.draw(st.integers(0, questions - 1))
    more = em_acc_then_loss(metrics(right + 1, questions, one))
    assert more > em_acc_then_loss(metrics(right, questions, other))


@given(
    questions=st.integers(1, 10_000),
    data=st.data(),
    one=st.floats(0, 20),
    other=st.floats(0, 20),
)
def test_a_tie_is_broken_by_the_loss(
    questions: int, data: st.DataObject, one: float, other: float
) -> None:
    assume(one < other * (1 - 1e-6))
    right = data.draw(st.integers(0, questions))
    better = em_acc_then_loss(metrics(right, questions, one))
    assert better > em_acc_then_loss(metrics(right, questions, other)) or other - one < 1e-3


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("objective", ["em_acc", "eval_loss"])
def test_a_loss_that_is_not_finite_is_the_worst_and_no_nan(objective: str, loss: float) -> None:
    judge = OBJECTIVES[objective]
    broken = judge(metrics(0, 100, loss))
    assert not math.isnan(broken)
    assert broken < judge(metrics(0, 100, 50.0))


@pytest.mark.parametrize("name", ["eval_loss", "train_peak_memory_bytes", "eval_peak_memory_bytes"])
def test_less_is_told_as_it_is_and_compared_as_more(name: str) -> None:
    row = OBJECTIVES[name]
    assert row.direction == "minimize"
    assert row.value({name: 1.0}) == 1.0
    assert row({name: 1.0}) > row({name: 2.0})


def test_a_peak_that_was_not_measured_is_the_worst() -> None:
    assert OBJECTIVES["train_peak_memory_bytes"].value({}) == math.inf


def test_those_of_a_task_begin_with_the_metric_that_ranks() -> None:
    common = ["eval_loss", "train_peak_memory_bytes", "eval_peak_memory_bytes"]
    assert list(OBJECTIVES) == ["em_acc", *common, "em_acc_strict"]


def test_a_number_is_told_as_it_is_and_a_share_to_be_small_goes_by_the_loss_too() -> None:
    error = MetricSpec("error", "error", direction="minimize")
    wrong = MetricSpec("wrong", "wrong", direction="minimize", is_share_of_questions=True)
    found = objectives(TaskMetrics((error, wrong)))
    assert found["error"].value({"error": 3.5}) == 3.5
    assert found["error"].value({}) == found["error"].value({"error": math.nan}) == math.inf
    one, other = ({"wrong": 0.5, "error_questions": 8, "eval_loss": loss} for loss in (1.0, 2.0))
    assert found["wrong"](one) > found["wrong"](other)
    assert found["wrong"]({**other, "wrong": 0.375}) > found["wrong"](one)
