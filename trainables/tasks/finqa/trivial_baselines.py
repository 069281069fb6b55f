"""FinQA's trivial baselines: the best constant answer and the best copied cell.

A model that is not better than these has learned nothing of the task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.tasks.exact_match import answer_text, score_completion
from trainables.tasks.task import Example

_CONSTANTS_TRIED = 20


def trivial_baselines(examples: Sequence[Example]) -> dict[str, float]:
    """EmAcc of two ways to answer without a model, on the numeric questions of `examples`.

    best_constant: the one answer that is right most often. copy_a_cell: the cell in a fixed column
    of a fixed row, or of the row that the question names, in the place that is right most often;
    a place that a table does not have is wrong. Both are chosen with knowledge of the gold. Empty
    if no question is numeric.
    """
    numeric = [example for example in examples if not isinstance(example.record["exe_ans"], str)]
    if not numeric:
        return {}
    right_by_constant = Counter(answer_text(example.record["exe_ans"]) for example in numeric)
    candidates = [text for text, _ in right_by_constant.most_common(_CONSTANTS_TRIED)]
    constants = [sum(_right(item, text) for item in numeric) for text in candidates]
    places = Counter(place for item in numeric for place in _right_places(item))
    return {
        "best_constant": max(constants) / len(numeric),
        "copy_a_cell": max(places.values(), default=0) / len(numeric),
    }


def _right(example: Example, answer: str) -> bool:
    return score_completion(answer, example.record["exe_ans"]).em_acc


def _right_places(example: Example) -> set[tuple[int | str, int]]:
    """The places in the example's table that hold its answer."""
    table: Sequence[Sequence[str]] = example.record["table"]
    asked = _asked_row(str(example.record["question"]), table)
    return {
        (place, column)
        for row, cells in enumerate(table)
        for column, cell in enumerate(cells)
        if _right(example, cell)
        for place in ((row, "asked") if row == asked else (row,))
    }


def _asked_row(question: str, table: Sequence[Sequence[str]]) -> int | None:
    """The row whose name the question contains, of several the one with the longest name."""
    named = [row for row, cells in enumerate(table) if cells and cells[0] and cells[0] in question]
    return max(named, key=lambda row: len(table[row][0]), default=None)
