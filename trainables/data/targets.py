"""Targets: what is learned, checked against what ends an answer."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.errors import InputError
from trainables.tasks.task import LINE_BREAK, Example, Task, one_line


def checked_targets(task: Task, examples: Sequence[Example]) -> list[str]:
    """The target of each example. Raises InputError for those that hold what ends an answer."""
    targets = [task.target(example) for example in examples]
    long = [e.id for e, target in zip(examples, targets, strict=True) if _ends(target, task.stop)]
    if long and task.stop == LINE_BREAK:
        raise InputError(
            f"{task.name}: {len(long)} of {len(targets)} targets have several lines (the first is "
            f"that of {long[0]}), and an answer ends at a line break. Make them one line."
        )
    if long:
        raise InputError(
            f"{task.name}: {len(long)} of {len(targets)} targets hold {task.stop!r} (the first is "
            f"that of {long[0]}), and an answer ends there. Choose another data.stop."
        )
    return targets


def _ends(target: str, stop: str | None) -> bool:
    """Whether an answer would end inside this target."""
    return one_line(target) != target if stop == LINE_BREAK else bool(stop and stop in target)
