"""TokenLengths: the lengths of a split's prompts and completions, in tokens."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data.encoding import encode
from trainables.errors import InputError
from trainables.spec.states import TRIAL
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import write_json
from trainables.tasks.registry import make_task

_ASSUMED_COMPLETION = 16  # tokens of a completion, where nothing can be tokenized
_KEPT = 16  # splits in memory


@dataclass(frozen=True)
class SplitLengths:
    """The examples of a split; a range stands for the tokens of a prompt or a completion, so that
    the code that batches token ids batches lengths too."""

    prompts: tuple[range, ...]
    completions: tuple[range, ...]

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]]) -> SplitLengths:
        return cls(tuple(range(p) for p, _ in lengths), tuple(range(c) for _, c in lengths))

    def __len__(self) -> int:
        return len(self.prompts)

    def length(self, index: int) -> int:
        return len(self.prompts[index]) + len(self.completions[index])


class TokenLengths:
    """Tokenizes each split of a task once; keeps the lengths in the folder `cache`, if given."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._known: dict[str, SplitLengths] = {}

    def splits(self, spec: TrialSpec, *, positions: int | None) -> dict[str, SplitLengths]:
        """The lengths of the splits that the trial reads. Raises InputError for bad data, OSError
        if there is no tokenizer."""
        limit = int(spec.knobs["sequence_length"])
        limit = min(limit, positions or limit)
        names = ("train", "selection") if spec.role == TRIAL else ("selection", "report")
        return {name: self._split(spec, name, limit) for name in names}

    def _split(self, spec: TrialSpec, name: str, limit: int) -> SplitLengths:
        key = _key(spec, name, limit)
        if key not in self._known:
            lengths = self._read(key)
            if lengths is None:
                lengths = _tokenized(spec, name, limit)
                self._write(key, lengths)
            self._known[key] = SplitLengths.of(lengths)
        for unused in list(self._known)[:-_KEPT]:
            del self._known[unused]
        return self._known[key]

    def _read(self, key: str) -> list[list[int]] | None:
        if self._cache is None:
            return None
        try:
            lengths = json.loads((self._cache / f"{key}.json").read_text())["lengths"]
            return [[int(prompt), int(completion)] for prompt, completion in lengths]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # missing, or damaged and to be replaced

    def _write(self, key: str, lengths: list[list[int]]) -> None:
        if self._cache is not None:
            write_json(self._cache / f"{key}.json", {"lengths": lengths})


def assumed_splits(spec: TrialSpec, *, positions: int | None) -> dict[str, SplitLengths]:
    """Splits whose examples all have the greatest length allowed, if nothing can be tokenized."""
    limit = int(spec.knobs["sequence_length"])
    limit = min(limit, positions or limit)
    row = [limit - _ASSUMED_COMPLETION, _ASSUMED_COMPLETION]
    trained = SplitLengths.of([row] * max(1, spec.budget.train_examples))
    return {
        "train": trained,
        "selection": SplitLengths.of([row] * max(1, spec.budget.eval_examples)),
        "report": SplitLengths.of([]),
    }


def _key(spec: TrialSpec, split: str, limit: int) -> str:
    """Equal for splits that are tokenized in the same way."""
    read = [spec.knobs[name] for name in ("prompt", "target")]
    model = [spec.model_digest, spec.model_source, spec.revision]
    parts = [model, spec.task, dict(spec.task_identity), dict(spec.task_options), read]
    text = json.dumps([*parts, split, limit], sort_keys=True, default=str)
    return "lengths-" + hashlib.sha256(text.encode()).hexdigest()


def _tokenized(spec: TrialSpec, split: str, limit: int) -> list[list[int]]:
    knobs = {name: spec.knobs[name] for name in ("prompt", "target")}
    task = make_task(spec.task, {**knobs, **spec.task_options})
    examples = task.load(split)
    if not examples:
        raise InputError(f"{spec.task}: the {split} split is empty.")
    tokenizer = _tokenizer(spec.model_source, spec.revision)
    encoded = encode(task, examples, tokenizer, sequence_length=limit)
    pairs = zip(encoded.prompts, encoded.completions, strict=True)
    return [[len(prompt), len(completion)] for prompt, completion in pairs]


@functools.lru_cache(maxsize=4)
def _tokenizer(source: str, revision: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source, revision=revision or None, trust_remote_code=False)
