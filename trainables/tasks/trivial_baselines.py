"""What needs no model: how often the best constant and the best copied cell would be right.

A model that scores no more than these has learned nothing of its task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.tasks.exact_match import answer_text, score_completion
from trainables.tasks.task import Example, Task

_CONSTANTS_TRIED = 20


def guesses(task: Task, examples: Sequence[Example]) -> dict[str, float]:
    """EmAcc on the numeric questions of `examples` of two ways to guess.

    best_constant: the one answer that is right most often, chosen with hindsight.
    copy_a_cell: a fixed column of a fixed row, or of the row that the question names, whichever
    place is right most often, chosen with hindsight; a place that a table lacks is wrong there.
    Empty where no question is numeric.
    """
    numeric = [example for example in examples if not isinstance(task.gold(example), str)]
    if not numeric:
        return {}
    right_by_constant = Counter(answer_text(task.gold(example)) for example in numeric)
    candidates = [text for text, _ in right_by_constant.most_common(_CONSTANTS_TRIED)]
    constants = [sum(_right(task, item, text) for item in numeric) for text in candidates]
    places = Counter(place for item in numeric for place in _right_places(task, item))
    return {
        "best_constant": max(constants) / len(numeric),
        "copy_a_cell": max(places.values(), default=0) / len(numeric),
    }


def _right(task: Task, example: Example, answer: str) -> bool:
    return score_completion(answer, task.gold(example)).em_acc


def _right_places(task: Task, example: Example) -> set[tuple[int | str, int]]:
    """The places of the example's table that hold its answer."""
    table: Sequence[Sequence[str]] = example.record["table"]
    asked = _asked_row(str(example.record["question"]), table)
    return {
        (place, column)
        for row, cells in enumerate(table)
        for column, cell in enumerate(cells)
        if _right(task, example, cell)
        for place in ((row, "asked") if row == asked else (row,))
    }


def _asked_row(question: str, table: Sequence[Sequence[str]]) -> int | None:
    """The row whose name the question contains; the longest name, or None."""
    named = [row for row, cells in enumerate(table) if cells and cells[0] and cells[0] in question]
    return max(named, key=lambda row: len(table[row][0]), default=None)
