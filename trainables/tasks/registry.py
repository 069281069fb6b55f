"""TASKS: the tasks that ship with the project; `find_task` also finds those of other packages.

Another package has a task of its own by an entry point of the group `sweep_orchestrator.tasks`,
whose name is the task's and whose value is its class:

    [project.entry-points."sweep_orchestrator.tasks"]
    headlines = "my_package.headlines:Headlines"

It must be installed wherever trials run. A sweep's file chooses among tasks by name and can name no
module: only what somebody has installed is imported. A shipped task is never replaced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import one_of
from trainables.spec.metric import TaskMetrics
from trainables.tasks.task import TOO_LONG, Task

GROUP = "sweep_orchestrator.tasks"
REFUSE, DROP = "refuse", "drop"  # the values of TOO_LONG


def _finqa() -> type[Task]:
    from trainables.tasks.finqa.task import FinQA

    return FinQA


def _tatqa() -> type[Task]:
    from trainables.tasks.tatqa.task import TATQA

    return TATQA


def _completion() -> type[Task]:
    from trainables.tasks.own_data.completion import Completion

    return Completion


def _chat() -> type[Task]:
    from trainables.tasks.own_data.chat import Chat

    return Chat


def _classification() -> type[Task]:
    from trainables.tasks.own_data.classification import Classification

    return Classification


def _tagging() -> type[Task]:
    from trainables.tasks.own_data.tagging import Tagging

    return Tagging


def _fpb() -> type[Task]:
    from trainables.tasks.financial.fpb import FPB

    return FPB


def _fomc() -> type[Task]:
    from trainables.tasks.financial.fomc import FOMC

    return FOMC


def _numclaim() -> type[Task]:
    from trainables.tasks.financial.numclaim import NumClaim

    return NumClaim


def _finer() -> type[Task]:
    from trainables.tasks.financial.finer import FiNER

    return FiNER


TASKS: dict[str, Callable[[], type[Task]]] = {
    "finqa": _finqa,  # the first one is asked where none is named
    "tatqa": _tatqa,
    "completion": _completion,
    "chat": _chat,
    "classification": _classification,
    "tagging": _tagging,
    "fpb": _fpb,
    "fomc": _fomc,
    "numclaim": _numclaim,
    "finer": _finer,
}


def task_names() -> list[str]:
    """All tasks that can be named here, those that ship first."""
    return list(dict.fromkeys([*TASKS, *_installed()]))


def is_task(name: object) -> bool:
    return isinstance(name, str) and (name in TASKS or name in _installed())


def find_task(name: str) -> type[Task]:
    """The class of a task. Raises InputError for an unknown one and for one that can't be loaded.

    Whether an entry point's class satisfies `Task` is not checked.
    """
    if name in TASKS:
        return TASKS[name]()
    if name not in _installed():
        raise InputError(f"task: no task named {name!r}.{did_you_mean(name, task_names())}")
    return _loaded(_installed()[name])


def task_metrics(name: str, options: Mapping[str, Any]) -> TaskMetrics:
    """The metrics of a task with these options of `data`; raises InputError as `find_task`.

    Options that are wrong decide nothing here: `make_task` refuses them.
    """
    return find_task(name).metrics_of(options)


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """The task with its options. Data files are read by `load`, not here.

    Raises InputError for an unknown task, and with all that is wrong in its options; among them may
    be TOO_LONG, which means the same for every task.
    """
    wrong = one_of(REFUSE, DROP)(options.get(TOO_LONG, REFUSE))
    faults = [f"data.{TOO_LONG}: {wrong}"] if wrong else []
    own = {option: value for option, value in options.items() if option != TOO_LONG}
    try:
        task = find_task(name).from_options(own)
    except InputError as error:
        faults += error.messages
    if faults:
        raise InputError(faults)
    return task


def drops_too_long(options: Mapping[str, Any]) -> bool:
    """Whether examples that don't fit are left out: of training, and in an evaluation they are
    questions without an answer. Otherwise they are an error."""
    return bool(options.get(TOO_LONG) == DROP)


@functools.cache
def _installed() -> Mapping[str, EntryPoint]:
    """The entry points of other packages. They are looked for once: that reads many files."""
    return {point.name: point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> type[Task]:
    try:
        task: type[Task] = point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else "a package"
        raise InputError(
            f"task: {point.name!r} of {package} can't be loaded from {point.value}: {error}"
        ) from error
    return task
