"""Votes: of several answers to a question the one that most of them mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.tasks.task import Example, Task


def elected(task: Task, example: Example, drawn: Sequence[str]) -> str:
    """The first drawn of the answers with the commonest meaning; of equally common ones the meaning
    that was drawn first.

    What the task's rule reads of an answer is its meaning (`Task.meaning`). An answer of which it
    reads nothing has no vote, unless none has.
    """
    if len(drawn) == 1:
        return drawn[0]
    meanings = [task.meaning(example, text) for text in drawn]
    votes = Counter(meaning for meaning in meanings if meaning) or Counter(meanings)
    commonest, _ = votes.most_common(1)[0]  # counts that are equal are in the order of drawing
    return drawn[meanings.index(commonest)]
