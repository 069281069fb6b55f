"""The task and the questions that are asked, from a command's options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.cli import space_file
from orchestrator.config.overrides import apply_overrides
from orchestrator.config.reader import from_mapping
from orchestrator.config.yaml_loader import read_yaml
from orchestrator.formatting import counted
from orchestrator.planning.planner import Planner
from trainables.errors import InputError, did_you_mean
from trainables.spec.knobs import baseline_knobs, task_values
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.registry import TASKS, find_task, is_task, make_task, task_names
from trainables.tasks.source import downloaded_data
from trainables.tasks.task import SPLITS, Example, Task

DEFAULT_TASK = next(iter(TASKS))
_NEAR = 3  # ids named in a message


def plain_spec(
    model: str,
    *,
    space: str | None,
    task: str | None,
    overrides: Sequence[str] = (),
    quantization: str = "none",
    split: str = "selection",
) -> TrialSpec:
    """The spec of a plain model if no trial is named: an untrained baseline.

    Task, data, execution and, at the top of its space, prompt, target and sequence_length are
    those of a sweep's file; without one, those of the task's downloaded data, of which only the
    file of the split is read if the task can do that. The compute dtype stays "auto" unless
    something sets it. Raises InputError with all that is wrong.
    """
    value = _downloaded(task or DEFAULT_TASK) if space is None else _file(space)
    changed, _ = apply_overrides(value, overrides)
    if space is not None and task not in (None, changed.get("task")):
        raise InputError(f"--task: got {task}, and {space} is of {changed.get('task')}.")
    config = from_mapping(_of_one(changed, model, quantization))
    if find_task(config.task).loads_one_split:
        config = replace(config, data={**config.data, "asked": split})
    planner = Planner(config)
    planner.device = {"compute_dtype": "auto"}
    planner.prepare()
    cells = [planner.baseline(each) for each in planner.cell_configurations()]
    if len(cells) > 1:
        raise InputError(
            f"{space}: its space has {len(cells)} prompts, targets or dtypes, and a model is asked "
            "in one way. Choose, as with --set space.prompt=default."
        )
    return cells[0]


def task_of(spec: TrialSpec) -> Task:
    """The task of a spec, with its prompt and data."""
    return make_task(spec.task, {**task_values(spec.knobs), **spec.task_options})


def chosen_questions(
    examples: Sequence[Example], samples: Sequence[str], limit: int | None, *, split: str
) -> list[int]:
    """The indices of the questions to ask: those of `samples` (ids, or indices from 0), or the
    first `limit`, by default one. Raises InputError with the samples that don't exist."""
    if not samples:
        return list(range(min(1 if limit is None else limit, len(examples))))
    places = {example.id: at for at, example in enumerate(examples)}
    found, faults = [], []
    for sample in samples:
        at = places.get(sample, int(sample) if sample.isascii() and sample.isdigit() else -1)
        if 0 <= at < len(examples):
            found.append(at)
        else:
            faults.append(f"--sample: {_absent(sample, list(places), split)}")
    if faults:
        raise InputError(faults)
    return list(dict.fromkeys(found))


def option_faults(
    *, split: str, samples: Sequence[str], limit: int | None, task: str | None
) -> list[str]:
    """The faults of options that can be found without the data."""
    faults = []
    if split not in SPLITS:
        faults.append(f"--split: got {split!r}.{did_you_mean(split, SPLITS)}")
    if limit is not None and limit < 1:
        faults.append(f"--limit: got {limit}; needs a whole number >= 1.")
    if samples and limit is not None:
        faults.append("--limit: given with --sample; give one of them.")
    if task is not None and not is_task(task):
        faults.append(f"--task: no task named {task!r}.{did_you_mean(task, task_names())}")
    return faults


def _file(space: str) -> dict[str, Any]:
    """The content of a sweep's file. Raises InputError if that is no mapping."""
    value = read_yaml(space_file(space))
    if not isinstance(value, dict):
        kind = {list: "a list", type(None): "nothing"}.get(type(value), repr(value))
        raise InputError(
            f"--space {space}: holds {kind}; needs a sweep's file, with task and data."
        )
    return value


def _downloaded(task: str) -> dict[str, Any]:
    source = find_task(task).source
    if source is None:
        raise InputError(f"--task: {task} has no files to download; name its data with --space.")
    return {"task": task, "data": downloaded_data(task, source)}


def _of_one(value: Mapping[str, Any], model: str, quantization: str) -> dict[str, Any]:
    """The mapping of a sweep with one model, which keeps the file's task, data and prompt."""
    space = value.get("space")
    own = space if isinstance(space, dict) else {}
    kept = {name: own[name] for name in baseline_knobs() if name in own and name != "method"}
    return {
        **{name: value[name] for name in ("task", "data", "execution") if name in value},
        "space": {**kept, "model": {"value": model}, "quantization": quantization},
        "budget": {"train_examples": 1, "eval_examples": 1},
        "search": {"algorithm": "random", "trials": 1},
        "scheduler": "none",
    }


def _absent(sample: str, ids: Sequence[str], split: str) -> str:
    if sample.lstrip("-").isdigit():
        asked = counted(len(ids), "question")
        return f"got {sample}; the {split} split has {asked}, 0 to {len(ids) - 1}."
    near = difflib.get_close_matches(sample, ids, n=_NEAR)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" It begins with {ids[0]}."
    return f"no question of the {split} split has the id {sample}.{hint}"
