"""The identity of a task: digests of its rule, prompt and data, and whether they have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainables.errors import CHANGED, InputError
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.task import SPLITS, Task


def task_identity(task: Task) -> dict[str, Any]:
    """What of a task decides a result: its rule, its prompt, the content of its splits."""
    facts = task.facts("selection")
    return {
        "version": task.version,
        "prompt": task.prompt_digest,
        "context": facts.get("context", ""),
        "evidence": facts.get("evidence", ""),
        "data": {split: task.data_digest(split) for split in SPLITS},
    }


def check_task(spec: TrialSpec, task: Task) -> None:
    """Raises InputError with all that has changed in the task since the trial was planned.

    Reads the data; what the spec's `task_identity` does not name is not checked.
    """
    changed = list(_changes(spec, task_identity(task)))
    if changed:
        raise InputError([f"{what} {CHANGED}" for what in changed])


def _changes(spec: TrialSpec, now: Mapping[str, Any]) -> Iterator[str]:
    planned = spec.task_identity
    names = {
        "version": f"{spec.task}: the task's rule",
        "prompt": f"prompt: {spec.knobs['prompt']!r}",
        "context": f"{spec.task}: the context",
        "evidence": f"{spec.task}: where the evidence comes from",
    }
    yield from (text for key, text in names.items() if planned.get(key, now[key]) != now[key])
    data = planned.get("data", {})
    for split, digest in now["data"].items():
        if data.get(split, digest) != digest:
            yield f"data: the {split} split of {spec.task}"
