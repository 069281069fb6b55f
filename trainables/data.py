"""Examples as token ids: prompts, completions, loss masks, batches and the order of training.

A prompt is tokenized as generation sees it; a completion is what follows it, so the loss falls on
completion tokens only.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trainables.chat import chat_prompt
from trainables.errors import InputError
from trainables.models.base import Base
from trainables.spec.trial_spec import TrialSpec
from trainables.tasks.identity import check_task
from trainables.tasks.registry import make_task
from trainables.tasks.task import Cut, Example, Prompt, Task

IGNORED = -100  # the label of a token that has no loss, as in torch's cross entropy
DATA_KEPT = 4  # of a cache; a token takes about 40 bytes, 6,251 full pages of FinQA 0.3 GB
_SLACK_TOKENS = 8  # a cut that leaves so few tokens unused is not refined

Tokens = tuple[int, ...]
DataCache = MutableMapping[Any, Any]


@dataclass(frozen=True)
class Encoded:
    """Examples of one split, tokenized; entry i of each field is example i's."""

    examples: tuple[Example, ...]
    prompts: tuple[Tokens, ...]
    completions: tuple[Tokens, ...]
    cut: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def prompts_cut(self) -> int:
        """How many prompts had to be shortened."""
        return sum(self.cut)

    def length(self, index: int) -> int:
        return len(self.prompts[index]) + len(self.completions[index])

    def subset(self, indices: Sequence[int]) -> Encoded:
        return Encoded(
            examples=tuple(self.examples[i] for i in indices),
            prompts=tuple(self.prompts[i] for i in indices),
            completions=tuple(self.completions[i] for i in indices),
            cut=tuple(self.cut[i] for i in indices),
        )


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, all (batch, length); `labels` are IGNORED but for completions."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def silent(self) -> Batch:
        """The same input with nothing to be learnt from it: its summed loss is 0."""
        return Batch(self.input_ids, self.attention_mask, torch.full_like(self.labels, IGNORED))


@dataclass(frozen=True)
class TrialData:
    """A task's splits as a trial reads them; each is loaded and tokenized when first asked for."""

    task: Task
    sequence_limit: int  # tokens of a prompt with its completion
    encode_split: Callable[[str], Encoded]
    splits: dict[str, Encoded] = field(default_factory=dict)

    def split(self, name: str) -> Encoded:
        """One of "train", "selection", "report". Raises InputError for bad or empty data."""
        if name not in self.splits:
            self.splits[name] = self.encode_split(name)
        return self.splits[name]


def load_data(spec: TrialSpec, base: Base, cache: DataCache) -> TrialData:
    """The spec's data as `base`'s tokenizer writes it, from `cache` where they are there already.

    The cache belongs to the caller; what is equal in tokenizer, data, prompt, target and length
    is loaded and tokenized once. It keeps the DATA_KEPT used last and no base alive. Raises
    InputError if the data, the prompt or the task's rule are not those that the spec was planned
    on.
    """
    limit = sequence_limit(spec, base)
    key = (base.tokenizer_digest, limit, _data_key(spec))
    data: TrialData = cache.pop(key) if key in cache else _new_data(spec, base, limit)
    cache[key] = data  # the last one is the one used last
    for unused in list(cache)[:-DATA_KEPT]:
        del cache[unused]
    return data


def sequence_limit(spec: TrialSpec, base: Base) -> int:
    """Tokens of a prompt with its completion: the knob, or the model's positions if fewer."""
    asked = int(spec.knobs["sequence_length"])
    return min(asked, base.longest_sequence or asked)


def encode(
    task: Task, examples: Sequence[Example], tokenizer: Any, *, sequence_length: int
) -> Encoded:
    """Tokenizes examples; a prompt that is too long loses context, never question or answer.

    Raises InputError if one does not fit even without its context.
    """
    writer = _Writer(tokenizer, sequence_length)
    prompts = [task.prompt(example) for example in examples]
    completions = writer.completions([task.target(e) for e in examples], prompts)
    whole = writer.tokenize([writer.text(prompt) for prompt in prompts])
    fitted = [
        writer.fit(example, prompt, tokens, sequence_length - len(completion))
        for example, prompt, tokens, completion in zip(
            examples, prompts, whole, completions, strict=True
        )
    ]
    return Encoded(
        examples=tuple(examples),
        prompts=tuple(fitted),
        completions=tuple(completions),
        cut=tuple(short != long for short, long in zip(fitted, whole, strict=True)),
    )


def collate(encoded: Encoded, indices: Sequence[int], *, pad_token: int) -> Batch:
    """Prompts with their completions, padded on the right, on the CPU."""
    rows = [encoded.prompts[i] + encoded.completions[i] for i in indices]
    length = max(map(len, rows))
    ids = [row + (pad_token,) * (length - len(row)) for row in rows]
    mask = [(1,) * len(row) + (0,) * (length - len(row)) for row in rows]
    labels = [
        (IGNORED,) * len(encoded.prompts[i])
        + encoded.completions[i]
        + (IGNORED,) * (length - len(row))
        for i, row in zip(indices, rows, strict=True)
    ]
    return Batch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))


def training_order(count: int, *, seed: int, start: int, stop: int) -> list[int]:
    """Which of `count` examples are seen as the `start`-th to the `stop`-th of a training.

    Every epoch is a permutation of its own, from the seed and the epoch alone: how the examples
    are batched does not change their order.
    """
    return [_permutation(count, seed, at // count)[at % count] for at in range(start, stop)]


def fixed_subset(count: int, size: int, *, seed: int) -> list[int]:
    """The same `size` of `count` indices for every trial of one seed, in ascending order."""
    drawn = random.Random(f"subset/{seed}/{count}").sample(range(count), min(size, count))
    return sorted(drawn)


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)


def _data_key(spec: TrialSpec) -> str:
    names = ("prompt", "target")
    parts = [spec.task, dict(spec.task_identity), _task_options(spec)]
    return json.dumps([*parts, [spec.knobs[n] for n in names]], sort_keys=True, default=str)


def _task_options(spec: TrialSpec) -> dict[str, Any]:
    knobs = {name: spec.knobs[name] for name in ("prompt", "target")}
    return {**knobs, **spec.task_options}  # a prompt's file has its whole path in the options


def _new_data(spec: TrialSpec, base: Base, limit: int) -> TrialData:
    task, tokenizer = make_task(spec.task, _task_options(spec)), base.tokenizer
    check_task(spec, task)

    def encode_split(name: str) -> Encoded:
        examples = task.load(name)
        if not examples:
            raise InputError(f"{spec.task}: the {name} split is empty.")
        return encode(task, examples, tokenizer, sequence_length=limit)

    return TrialData(task=task, sequence_limit=limit, encode_split=encode_split)


class _Writer:
    """One tokenizer's way to write prompts and completions."""

    def __init__(self, tokenizer: Any, sequence_length: int) -> None:
        self._tokenizer = tokenizer
        self._limit = sequence_length

    def text(self, prompt: Prompt, pieces: Sequence[str] | None = None) -> str:
        message = "".join(prompt.pieces if pieces is None else pieces)
        if self._tokenizer.chat_template is None:
            return message + ("" if message.endswith("\n") else "\n") + prompt.reply
        return chat_prompt(self._tokenizer, message) + prompt.reply

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of prompts, with the beginning token once where the tokenizer has one."""
        bos = self._tokenizer.bos_token
        begun = bos is not None and texts != [] and texts[0].startswith(bos)
        rows = self._tokenizer(list(texts), add_special_tokens=not begun)["input_ids"]
        return [self._open(tuple(row)) for row in rows]

    def completions(self, targets: Sequence[str], prompts: Sequence[Prompt]) -> list[Tokens]:
        """' target' and a newline as they are tokenized after the reply, and the end token last."""
        replies = [prompt.reply for prompt in prompts]
        texts = [f"{reply} {target}\n" for reply, target in zip(replies, targets, strict=True)]
        if not texts:
            return []
        opened = self._plain(replies)
        return [
            self._closed(row[len(reply) :] if row[: len(reply)] == reply else alone)
            for row, reply, alone in zip(
                self._plain(texts),
                opened,
                self._plain([f" {target}\n" for target in targets]),
                strict=True,
            )
        ]

    def fit(self, example: Example, prompt: Prompt, tokens: Tokens, limit: int) -> Tokens:
        """`tokens`, or those of the prompt with as much context as `limit` leaves."""
        if len(tokens) <= limit:
            return tokens
        pieces = list(prompt.pieces)
        for cut in prompt.cuts:
            shortened = self._shorten(prompt, pieces, cut, limit)
            if len(shortened) <= limit:
                return shortened
        needed = len(self._of(prompt, pieces)) + self._limit - limit
        raise InputError(
            f"sequence_length: example {example.id} needs {needed} tokens without any context; "
            f"{self._limit} are allowed. Set sequence_length >= {needed}, or a shorter prompt."
        )

    def _shorten(self, prompt: Prompt, pieces: list[str], cut: Cut, limit: int) -> Tokens:
        """Removes as few characters of one piece as needed, in place; by interpolation."""
        whole = pieces[cut.piece]

        def attempt(removed: int) -> Tokens:
            kept = whole[removed:] if cut.side == "start" else whole[: len(whole) - removed]
            pieces[cut.piece] = kept
            return self._of(prompt, pieces)

        best = attempt(len(whole))
        if len(best) > limit:
            return best
        low, high, over = 0, len(whole), len(attempt(0)) - limit
        for tries in range(2 * len(whole).bit_length()):
            if high - low <= 1 or limit - len(best) <= _SLACK_TOKENS:
                break
            slope = over / (over + limit - len(best)) if tries % 3 < 2 else 0.5
            middle = min(max(low + round((high - low) * slope), low + 1), high - 1)
            tokens = attempt(middle)
            if len(tokens) <= limit:
                high, best = middle, tokens
            else:
                low, over = middle, len(tokens) - limit
        return attempt(high)

    def _of(self, prompt: Prompt, pieces: Sequence[str]) -> Tokens:
        return self.tokenize([self.text(prompt, pieces)])[0]

    def _plain(self, texts: Sequence[str]) -> list[Tokens]:
        rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [tuple(row) for row in rows]

    def _open(self, row: Tokens) -> Tokens:
        """Some tokenizers end every text; a prompt goes on."""
        ended = row[-1:] == (self._tokenizer.eos_token_id,)
        return row[:-1] if ended else row

    def _closed(self, row: Tokens) -> Tokens:
        end = self._tokenizer.eos_token_id
        return row if end is None or row[-1:] == (end,) else (*row, end)
