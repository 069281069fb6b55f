"""FinQA's trivial baselines: accuracy without a model."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.tasks.registry import make_task
from trainables.tasks.task import Example

TASK = make_task("finqa", {"train": "t", "selection": "s", "prompt": "statements"})
TABLE = [["", "2014", "2013"], ["cash", "32", "21"], ["debt", "7", "5"]]


def example(gold: float | str, *, question: str = "?", table: Any = None) -> Example:
    record = {"question": question, "exe_ans": gold, "table": table or TABLE, "program": ""}
    return Example(f"{gold} {question}", record, "group")


def test_the_best_constant_is_the_answer_that_is_right_most_often() -> None:
    examples = [example(3.0), example(3.0), example(3.0), example(4.0)]
    assert TASK.trivial_baselines(examples)["best_constant"] == 0.75


def test_a_constant_is_an_answer_also_where_programs_are_learned() -> None:
    programs = make_task("finqa", {"train": "t", "selection": "s", "target": "program"})
    examples = [example(3.0), example(3.0), example(3.0), example(4.0)]
    assert programs.trivial_baselines(examples) == TASK.trivial_baselines(examples)


def test_a_fixed_cell_is_right_where_the_answer_lies() -> None:
    examples = [example(32.0), example(32.0), example(5.0), example(99.0)]
    assert TASK.trivial_baselines(examples)["copy_a_cell"] == 0.5


def test_the_row_that_is_asked_for_can_be_copied_from() -> None:
    examples = [
        example(32.0, question="how much cash?"),
        example(7.0, question="how much debt?"),
        example(21.0, question="how much cash was there before?"),
    ]
    assert TASK.trivial_baselines(examples)["copy_a_cell"] == pytest.approx(2 / 3)


def test_the_longest_name_is_the_row_that_is_asked_for() -> None:
    table = [["", "2014"], ["cash", "1"], ["cash flow", "2"]]
    other = [["", "2014"], ["debt", "9"], ["cash flow", "3"], ["cash", "4"]]
    examples = [
        example(2.0, question="what was cash flow?", table=table),
        example(3.0, question="what was cash flow?", table=other),
    ]
    assert TASK.trivial_baselines(examples)["copy_a_cell"] == 1.0


def test_only_numeric_questions_count() -> None:
    assert (
        TASK.trivial_baselines([example("yes"), example("yes"), example(3.0)])["best_constant"]
        == 1.0
    )
    assert TASK.trivial_baselines([example("yes")]) == {}
    assert TASK.trivial_baselines([]) == {}


def test_an_answer_that_no_table_holds_can_not_be_copied() -> None:
    assert TASK.trivial_baselines([example(99.5)])["copy_a_cell"] == 0.0
