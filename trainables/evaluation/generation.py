"""Batched generation of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trainables.data.batches import length_sorted
from trainables.data.encoding import Encoded
from trainables.evaluation.decoding import (
    GREEDY_DRAW,
    Draw,
    EndOfLineOfBeams,
    Steps,
    seeded,
    strategy_options,
)
from trainables.models.base import Base
from trainables.models.states import States
from trainables.resources.flops import Generation
from trainables.spec.trial_spec import Execution
from trainables.tasks.task import LINE_BREAK


class EndOfLine:
    """A stopping criterion of transformers: ends a row at its first newline after visible text.

    It looks at one new token per row and step, so it must be called from the first step on.
    """

    def __init__(self, base: Base) -> None:
        self._base = base
        self._begun: torch.Tensor | None = None

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        del scores, kwargs
        tokens = input_ids[:, -1]
        reads = ~self._base.blanks[tokens]
        self._begun = reads if self._begun is None else self._begun | reads
        return self._begun & self._base.line_ends[tokens]


def generation_batches(
    base: Base, encoded: Encoded, execution: Execution, *, known: int = 0
) -> list[list[int]]:
    """The batches of prompts, by index; one near the model's longest sequence is a batch alone,
    because it leaves less room for the answers in its batch."""
    rooms = [room_for_answer(base, prompt, execution) for prompt in encoded.prompts]
    wide = [index for index, room in enumerate(rooms) if room == execution.max_new_tokens]
    lengths = [len(encoded.prompts[index]) for index in wide]
    batches = length_sorted(lengths, batch_size=execution.eval_batch_size, known=known)
    alone = [[index] for index, room in enumerate(rooms) if room < execution.max_new_tokens]
    return [[wide[at] for at in batch] for batch in batches] + alone


def room_for_answer(base: Base, prompt: Sequence[int], execution: Execution) -> int:
    """The number of tokens that may be generated after a prompt, at least one."""
    wanted = execution.max_new_tokens
    left = wanted if base.longest_sequence is None else base.longest_sequence - len(prompt)
    return max(1, min(wanted, left))


def generate(
    model: Any,
    base: Base,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop: str | None = LINE_BREAK,
    draw: Draw = GREEDY_DRAW,
    begun: States | None = None,
) -> tuple[list[str], Generation]:
    """Answers prompts in one batch, padded on the left; also returns the work that this was.

    An answer ends before `stop`, or with the model's end token. A `draw` that is not greedy names
    the question of each prompt. `begun`: the states of the tokens with which all prompts begin;
    padding follows them.
    """
    known = begun.length if begun else 0
    ids, mask = padded_prompts(prompts, base, known=known)
    length = ids.shape[1]
    steps, rows = Steps(), len(prompts) * draw.decoding.beams
    with seeded(draw, base.device):
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            **_ending(base, stop, line_end=line_end(base, draw, prompt_length=length)),
            **strategy_options(draw, steps),
            **_beginning(begun, rows=rows),
        )
    new = written[:, length:]
    new = new.where(new >= 0, base.pad_token)  # beams fill up with -1 if there is no end token
    texts: list[str] = base.tokenizer.batch_decode(new, skip_special_tokens=True)
    work = Generation(rows, length, steps.count or new.shape[1], known)
    return [_answer(text, stop) for text in texts], work


def padded_prompts(
    prompts: Sequence[Sequence[int]], base: Base, *, known: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ids and the mask (rows, length) of prompts, with padding after their first `known`
    tokens; at least two tokens follow these."""
    length = max(known + 2, *map(len, prompts))
    ids, mask = [], []
    for prompt in prompts:
        left = length - len(prompt)
        ids.append([*prompt[:known], *[base.pad_token] * left, *prompt[known:]])
        mask.append([1] * known + [0] * left + [1] * (len(prompt) - known))
    return torch.tensor(ids, device=base.device), torch.tensor(mask, device=base.device)


def line_end(base: Base, draw: Draw, *, prompt_length: int) -> EndOfLine | EndOfLineOfBeams:
    """The criterion that ends an answer of the strategy at the end of its line."""
    has_beams = draw.decoding.beams > 1
    return EndOfLineOfBeams(base, prompt_length) if has_beams else EndOfLine(base)


def _beginning(begun: States | None, *, rows: int) -> dict[str, Any]:
    return {} if begun is None else {"past_key_values": begun.growing(rows)}


def _ending(
    base: Base, stop: str | None, *, line_end: EndOfLine | EndOfLineOfBeams
) -> dict[str, Any]:
    if stop == LINE_BREAK:
        return {"stopping_criteria": [line_end]}
    return {} if stop is None else {"stop_strings": [stop], "tokenizer": base.tokenizer}


def _answer(text: str, stop: str | None) -> str:
    """The text before `stop`: after it there is padding, which may decode to text."""
    visible = text.strip()
    return visible if stop is None else visible.partition(stop)[0].rstrip()
