"""The tasks, by the name that a search space gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.tasks.task import Task


def _finqa(options: Mapping[str, Any]) -> Task:
    from trainables.tasks.finqa.task import FinQA

    return FinQA.from_options(options)


def _tatqa(options: Mapping[str, Any]) -> Task:
    from trainables.tasks.tatqa.task import TATQA

    return TATQA.from_options(options)


TASKS: dict[str, Callable[[Mapping[str, Any]], Task]] = {
    "finqa": _finqa,
    "tatqa": _tatqa,
}


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task with its options. Data files are read by `load`, not here.

    Raises InputError for an unknown task, and with all that is wrong in its options.
    """
    if name not in TASKS:
        raise InputError(f"task: no task named {name!r}.{did_you_mean(name, TASKS)}")
    return TASKS[name](options)
