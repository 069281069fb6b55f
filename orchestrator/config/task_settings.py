"""What a sweep's file must agree on with its task: its name, its objectives, its knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.config.objectives import objectives
from orchestrator.config.settings import Setting
from orchestrator.shipped_files import resolve_data_paths
from orchestrator.space.enumeration import values_of
from orchestrator.space.tree import Space
from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import Check, one_of
from trainables.spec.knobs import task_knobs
from trainables.tasks.registry import find_task, is_task, make_task, task_metrics, task_names


def a_task(value: Any) -> str | None:
    """Accepts the name of a task that is installed here."""
    return None if is_task(value) else one_of(*task_names())(value)


def objective_setting(task: Any, data: Any) -> Setting:
    """An objective of the task, or a list of different ones; by default its primary metric.

    Anything if the task is unknown, which is a fault of its own. Raises InputError for a task that
    can't be loaded.
    """
    if not is_task(task):
        return Setting(lambda value: None, "")
    metrics = task_metrics(task, data if isinstance(data, Mapping) else {})
    return Setting(_objectives(list(objectives(metrics))), metrics.primary.name)


def option_faults(data: Mapping[str, Any]) -> list[str]:
    """Options of a task that no sweep has: without its other splits there is nothing to train."""
    return ["data.asked: unknown option."] if "asked" in data else []


def data_faults(task: Any, data: Any) -> list[str]:
    """What is wrong with the task's options, whatever its knobs are; reads no data.

    Nothing if the task is unknown or `data` is no mapping: those are faults of their own.
    """
    if not is_task(task) or not isinstance(data, Mapping):
        return []
    own = {name: value for name, value in data.items() if name not in task_knobs()}
    try:
        make_task(task, resolve_data_paths(own))
    except InputError as error:
        return list(error.messages)
    return []


def task_knob_faults(space: Space, task: str) -> list[str]:
    """The space's knobs of tasks that this one does not read, and targets that it does not have."""
    found = find_task(task)
    allowed = found.targets
    unread = [name for name in task_knobs() if name not in found.knobs]
    own = "task " + task + " reads " + ", ".join(found.knobs)
    return [
        f"space.{path}: {own}, and not {name}. Leave it out."
        for name in unread
        for path in dict.fromkeys(path for path, _ in values_of(space, name))
    ] + [
        f"space.{path}: got {value!r}.{did_you_mean(value, allowed)}"
        for path, value in values_of(space, "target")
        if value not in allowed
    ]


def _objectives(allowed: Sequence[str]) -> Check:
    """Accepts an objective, or a list of different ones."""
    check = one_of(*allowed)

    def wrong(value: Any) -> str | None:
        if not isinstance(value, list):
            return check(value)
        if not value:
            return f"the list is empty; needs {', '.join(allowed)}."
        repeated = [name for place, name in enumerate(value) if name in value[:place]]
        if repeated:
            return f"{repeated[0]!r} is there twice. Remove one."
        return next((fault for name in value if (fault := check(name))), None)

    return wrong
