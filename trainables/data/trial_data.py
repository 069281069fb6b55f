"""TrialData: the encoded examples of a trial, cached between trials."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from trainables.data.encoding import Encoded, encode
from trainables.data.shots import ASKED, shot_values, shots_for
from trainables.data.token_lengths import length_fault, sequence_limit
from trainables.errors import InputError
from trainables.models.base import Base
from trainables.spec.knobs import task_values
from trainables.spec.rows.chat_formats import chat_format_of
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.identity import check_task
from trainables.tasks.registry import drops_too_long, make_task
from trainables.tasks.task import Task

DATA_KEPT = 4  # entries of a cache; a token takes 40 bytes, 6,251 full pages of FinQA 0.3 GB
DataCache = MutableMapping[Any, Any]


@dataclass(frozen=True)
class TrialData:
    """The splits of a task, each loaded and tokenized at its first use.

    With `drops_too_long` the train split lacks the examples that don't fit, and in the others they
    have no tokens; otherwise they are an error.
    """

    task: Task
    sequence_limit: int  # tokens of a prompt with its completion
    encode_split: Callable[[str], Encoded]
    drops_too_long: bool = False
    splits: dict[str, Encoded] = field(default_factory=dict)

    def split(self, name: str) -> Encoded:
        """The split "train", "selection" or "report". Raises InputError for bad or empty data."""
        if name not in self.splits:
            self.splits[name] = self.encode_split(name)
        return self.splits[name]


def load_data(spec: TrialSpec, base: Base, cache: DataCache) -> TrialData:
    """The spec's data, encoded by the tokenizer of `base`; from `cache` if it has them.

    The caller owns the cache. Data with equal tokenizer, files, prompt, target and length are
    loaded and tokenized once. The cache keeps the DATA_KEPT entries used last, and no base alive.
    Raises InputError if the data, the prompt or the task's rule have changed since planning.
    """
    limit = sequence_limit(spec, positions=base.longest_sequence)
    key = (base.tokenizer_digest, limit, _data_key(spec))
    data: TrialData = cache.pop(key) if key in cache else _new_data(spec, base, limit)
    cache[key] = data  # the cache is in the order of last use
    for unused in list(cache)[:-DATA_KEPT]:
        del cache[unused]
    return data


def _data_key(spec: TrialSpec) -> str:
    parts = [spec.task, dict(spec.task_identity), _task_options(spec), task_values(spec.knobs)]
    parts += [shot_values(spec.knobs), chat_format_of(spec.knobs)]
    return json.dumps(parts, sort_keys=True, default=str)


def _task_options(spec: TrialSpec) -> dict[str, Any]:
    return {
        **task_values(spec.knobs),
        **spec.task_options,
    }  # the options have the absolute path of a prompt's file


def check_lengths(encoded: Encoded, spec: TrialSpec, *, split: str, limit: int) -> None:
    """Raises InputError for examples that don't fit, if the spec refuses them or none is left."""
    fault = length_fault(spec, {split: encoded}, limit)
    if fault is not None:
        raise InputError(fault)


def _new_data(spec: TrialSpec, base: Base, limit: int) -> TrialData:
    task, tokenizer = make_task(spec.task, _task_options(spec)), base.tokenizer
    check_task(spec, task)
    shown = shots_for(spec.knobs, task)

    def encode_split(name: str) -> Encoded:
        examples = task.load(name)
        if not examples:
            raise InputError(f"{spec.task}: the {name} split is empty.")
        encoded = encode(
            task,
            examples,
            tokenizer,
            sequence_length=limit,
            shots=shown if name in ASKED else None,
            chat_format=chat_format_of(spec.knobs),
        )
        check_lengths(encoded, spec, split=name, limit=limit)
        return encoded.without_too_long() if name == "train" else encoded

    return TrialData(task, limit, encode_split, drops_too_long(spec.task_options))
