"""TASK_KNOBS: the rows of KNOBS that are options of tasks; a task reads those in `Task.knobs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.spec.checks import one_of, whole
from trainables.spec.knob import Knob
from trainables.spec.knob_values import text

ANSWERS = ("generate", "likelihood", "likelihood_per_token")  # how a label is chosen
GENERATE = ANSWERS[0]


def _always(configuration: Mapping[str, Any]) -> bool:
    del configuration
    return True


def _is_not_written(answer: Any) -> bool:
    return bool(answer != GENERATE)


TASK_KNOBS: dict[str, Knob] = {
    "prompt": Knob("default", text, str, _always, of_task=True, simulated=None),
    "target": Knob(  # one of its task's targets
        "answer", text, str, _always, of_task=True, simulated=None
    ),
    "answer": Knob(  # of tasks with labels
        GENERATE,
        one_of(*ANSWERS),
        str,
        _always,
        switches=_is_not_written,  # of what a likelihood chooses nothing is decoded
        of_task=True,
        unsaid=True,
        has_column=False,
        simulated=None,
    ),
    "split_seed": Knob(  # of tasks that publish several splits
        5768,
        whole(0),
        int,
        _always,
        of_task=True,
        unsaid=True,
        has_column=False,
        simulated=None,
        affects_speed=False,
        varied_label="split{split_seed}",
    ),
}
