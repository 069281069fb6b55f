"""TokenLengths: the lengths of a split's prompts and completions, in tokens."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.data.encoding import Encoded, encode
from trainables.data.shots import ASKED, shot_values, shots_for
from trainables.data.token_rows import TokenRows, TooLong
from trainables.errors import InputError
from trainables.models.tokenizer import load_tokenizer
from trainables.spec.knobs import task_values
from trainables.spec.rows.chat_formats import chat_format_of
from trainables.spec.rows.shot_knobs import reads_base, refused_shots
from trainables.spec.states import TRIAL
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import write_json
from trainables.tasks.registry import drops_too_long, make_task
from trainables.tasks.task import Example, Task

_ASSUMED_COMPLETION = 16  # tokens of a completion, where nothing can be tokenized
_KEPT = 16  # splits in memory


@dataclass(frozen=True)
class SplitLengths(TokenRows):
    """The examples of a split; a range stands for the tokens of a prompt or a completion, so that
    the code that batches token ids batches lengths too.

    An example that does not fit has no tokens and is one of `too_long`. `lost_shots` are those of
    Encoded. `prompts_cut` prompts were shortened; `largest_token` is the greatest id in any
    example, -1 without one.
    """

    prompts: tuple[range, ...]
    completions: tuple[range, ...]
    prompts_cut: int = 0
    largest_token: int = -1
    too_long: tuple[TooLong, ...] = ()
    choices: tuple[tuple[range, ...], ...] = ()  # as in Encoded
    lost_shots: tuple[TooLong, ...] = ()
    learned: tuple[tuple[range, ...], ...] = ()  # as in Encoded
    beginning: int = 0  # as in Encoded

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int]]) -> SplitLengths:
        return cls(tuple(range(p) for p, _ in lengths), tuple(range(c) for _, c in lengths))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SplitLengths:
        """What `to_json` gave; raises KeyError, TypeError or ValueError for anything else."""
        lengths = [[int(prompt), int(completion)] for prompt, completion in value["lengths"]]
        return replace(
            cls.of(lengths),
            prompts_cut=int(value["prompts_cut"]),
            largest_token=int(value["largest_token"]),
            too_long=_too_long(value["too_long"]),
            choices=_ranges(value["choices"]),
            lost_shots=_too_long(value["lost_shots"]),
            learned=tuple(tuple(range(*span) for span in row) for row in value["learned"]),
            beginning=int(value["beginning"]),
        )

    def to_json(self) -> dict[str, Any]:
        lengths = zip(map(len, self.prompts), map(len, self.completions), strict=True)
        return {
            "lengths": [list(pair) for pair in lengths],
            "prompts_cut": self.prompts_cut,
            "largest_token": self.largest_token,
            "too_long": [[each.example_id, each.tokens] for each in self.too_long],
            "choices": [[len(choice) for choice in found] for found in self.choices],
            "lost_shots": [[each.example_id, each.tokens] for each in self.lost_shots],
            "learned": [[[span.start, span.stop] for span in row] for row in self.learned],
            "beginning": self.beginning,
        }

    def without_too_long(self) -> SplitLengths:
        """Only the examples that fit."""
        kept = [index for index, prompt in enumerate(self.prompts) if prompt]
        return replace(self.subset(kept), too_long=self.too_long)

    def subset(self, indices: Sequence[int]) -> SplitLengths:
        return replace(
            self,
            prompts=tuple(self.prompts[index] for index in indices),
            completions=tuple(self.completions[index] for index in indices),
            choices=tuple(self.choices[index] for index in indices) if self.choices else (),
            learned=tuple(self.learned[index] for index in indices) if self.learned else (),
            too_long=(),
            lost_shots=(),
        )

    def of_choices(self) -> SplitLengths:
        """A row for each choice of each example, as `Encoded.of_choices`."""
        pairs = [(at, choice) for at, found in enumerate(self.choices) for choice in found]
        prompts = tuple(self.prompts[at] for at, _ in pairs)
        return SplitLengths(prompts, tuple(choice for _, choice in pairs))


class TokenLengths:
    """Tokenizes each split of a task once; keeps the lengths in the folder `cache`, if given."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self._known: dict[str, SplitLengths] = {}

    def splits(self, spec: TrialSpec, *, positions: int | None) -> dict[str, SplitLengths]:
        """The lengths of the splits that the trial reads. Raises InputError for bad data and for
        examples that don't fit and are not to be dropped, OSError if there is no tokenizer."""
        names = ("train", "selection") if spec.role == TRIAL else ("selection", "report")
        found = {name: self.split(spec, name, positions=positions) for name in names}
        fault = length_fault(spec, found, sequence_limit(spec, positions=positions))
        if fault is not None:
            raise InputError(fault)
        return {
            name: split.without_too_long() if name == "train" else split
            for name, split in found.items()
        }

    def split(self, spec: TrialSpec, name: str, *, positions: int | None) -> SplitLengths:
        """All examples of one split, whether they fit or not. Raises InputError for bad data,
        OSError if there is no tokenizer."""
        limit = sequence_limit(spec, positions=positions)
        key = _key(spec, name, limit)
        if key not in self._known:
            lengths = self._read(key)
            if lengths is None:
                lengths = _lengths(_tokenized(spec, name, limit))
                self._write(key, lengths)
            self._known[key] = lengths
        for unused in list(self._known)[:-_KEPT]:
            del self._known[unused]
        return self._known[key]

    def _read(self, key: str) -> SplitLengths | None:
        if self._cache is None:
            return None
        try:
            return SplitLengths.from_json(json.loads((self._cache / f"{key}.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None  # missing, of an older version, or damaged: to be replaced

    def _write(self, key: str, lengths: SplitLengths) -> None:
        if self._cache is not None:
            write_json(self._cache / f"{key}.json", lengths.to_json())


def assumed_splits(spec: TrialSpec, *, positions: int | None) -> dict[str, SplitLengths]:
    """Splits whose examples all have the greatest length allowed, if nothing can be tokenized."""
    limit = sequence_limit(spec, positions=positions)
    row = [limit - _ASSUMED_COMPLETION, _ASSUMED_COMPLETION]
    trained = SplitLengths.of([row] * max(1, spec.budget.train_examples))
    return {
        "train": trained,
        "selection": SplitLengths.of([row] * max(1, spec.budget.eval_examples)),
        "report": SplitLengths.of([]),
    }


def sequence_limit(spec: TrialSpec, *, positions: int | None) -> int:
    """The limit of prompt and completion: sequence_length, or the model's positions if fewer."""
    asked = int(spec.knobs["sequence_length"])
    return min(asked, positions or asked)


def length_fault(
    spec: TrialSpec, splits: Mapping[str, SplitLengths | Encoded], limit: int
) -> str | None:
    """Why splits can't be used because of examples that need more than `limit` tokens, or None.

    Examples may be dropped if the spec says so, but not a whole split.
    """
    drops = drops_too_long(spec.task_options)
    refused = {
        name: split
        for name, split in splits.items()
        if split.too_long and not (drops and len(split.too_long) < len(split))
    }
    if not refused:
        return _shots_fault(spec, splits, limit)
    counts = [f"{len(s.too_long)} of {len(s)} of the {n} split" for n, s in refused.items()]
    every = [example for split in refused.values() for example in split.too_long]
    longest = max(every, key=lambda example: example.tokens)
    model, asked = spec.knobs["model"], int(spec.knobs["sequence_length"])
    way = f"Set sequence_length >= {longest.tokens}"
    if limit < asked:
        way = f"{model} has no more positions than that: use another model"
    drop = "" if drops else ", or data.too_long: drop, which leaves them out"
    return (
        f"sequence_length: examples need more than {limit} tokens, even without any context, with "
        f"the tokenizer of {model}: {', '.join(counts)}; the longest, {longest.example_id}, needs "
        f"{longest.tokens}. {way}, or a shorter prompt{drop}."
    )


def _shots_fault(
    spec: TrialSpec, splits: Mapping[str, SplitLengths | Encoded], limit: int
) -> str | None:
    """Why shots that do not all fit into `limit` tokens are refused, or None."""
    shots, is_guess = refused_shots(spec.knobs), reads_base(spec.knobs)  # no base is loaded for it
    short = {
        name: split
        for name, split in splits.items()
        if split.lost_shots and not (is_guess and isinstance(split, SplitLengths))
    }
    if not shots or not short:
        return None
    counts = [f"{len(s.lost_shots)} of {len(s)} of the {n} split" for n, s in short.items()]
    every = [example for split in short.values() for example in split.lost_shots]
    longest = max(every, key=lambda example: example.tokens)
    return (
        f"shots: got {shots['shots']} ({shots['shot_selection']}), which do not all fit into "
        f"{limit} tokens with the tokenizer of {spec.knobs['model']}, for {', '.join(counts)}; the "
        f"longest, {longest.example_id}, needs {longest.tokens}. Give fewer shots, a larger "
        f"sequence_length, or shots_too_long: drop, which shows such a question fewer."
    )


def split_of(spec: TrialSpec, name: str) -> tuple[Task, list[Example]]:
    """The spec's task and the examples of a split. Raises InputError for bad or empty data."""
    options = {**task_values(spec.knobs), **spec.task_options}
    task = _task(spec.task, json.dumps(options, sort_keys=True))
    examples = task.load(name)
    if not examples:
        raise InputError(f"{spec.task}: the {name} split is empty.")
    return task, examples


def tokenizer_of(spec: TrialSpec) -> Any:
    """The tokenizer of the spec's model, loaded once."""
    return _tokenizer(spec.model_source, spec.revision)


def _key(spec: TrialSpec, split: str, limit: int) -> str:
    """Equal for splits that are tokenized in the same way."""
    read = task_values(spec.knobs) | (shot_values(spec.knobs) if split in ASKED else {})
    read["chat_format"] = chat_format_of(spec.knobs)
    model = [spec.model_digest, spec.model_source, spec.revision]
    parts = [model, spec.task, dict(spec.task_identity), dict(spec.task_options), read]
    text = json.dumps([*parts, split, limit], sort_keys=True, default=str)
    return "lengths-" + hashlib.sha256(text.encode()).hexdigest()


def _tokenized(spec: TrialSpec, split: str, limit: int) -> Encoded:
    task, examples = split_of(spec, split)
    shots = shots_for(spec.knobs, task) if split in ASKED else None
    return encode(
        task,
        examples,
        tokenizer_of(spec),
        sequence_length=limit,
        shots=shots,
        chat_format=chat_format_of(spec.knobs),
    )


def _lengths(encoded: Encoded) -> SplitLengths:
    pairs = list(zip(encoded.prompts, encoded.completions, strict=True))
    return replace(
        SplitLengths.of([[len(prompt), len(completion)] for prompt, completion in pairs]),
        prompts_cut=encoded.prompts_cut,
        largest_token=max((max(prompt + end) for prompt, end in pairs if prompt), default=-1),
        too_long=encoded.too_long,
        lost_shots=encoded.lost_shots,
        learned=encoded.learned,
        beginning=encoded.beginning,
        choices=_ranges([[len(one.tokens) for one in found] for found in encoded.choices]),
    )


def _too_long(pairs: Iterable[tuple[Any, Any]]) -> tuple[TooLong, ...]:
    return tuple(TooLong(str(name), int(tokens)) for name, tokens in pairs)


def _ranges(lengths: Sequence[Sequence[int]]) -> tuple[tuple[range, ...], ...]:
    return tuple(tuple(range(int(tokens)) for tokens in found) for found in lengths)


@functools.lru_cache(maxsize=2)
def _task(name: str, options: str) -> Task:
    """The task, which keeps the data that it has read."""
    return make_task(name, json.loads(options))


@functools.lru_cache(maxsize=4)
def _tokenizer(source: str, revision: str) -> Any:
    return load_tokenizer(source, revision=revision or None)
