"""Batches of examples: padding, training order and fixed subsets."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables.data.encoding import Encoded
from trainables.spec.trial_spec import TrialSpec

IGNORED = -100  # the label of a token without a loss, the default of torch's cross entropy


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right, each (batch, length); `labels` are IGNORED where there is
    no loss."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def silent(self) -> Batch:
        """The same input with all labels IGNORED: its summed loss is 0."""
        return Batch(self.input_ids, self.attention_mask, torch.full_like(self.labels, IGNORED))


def collate(encoded: Encoded, indices: Sequence[int], *, pad_token: int) -> Batch:
    """The batch of prompts with their completions, on the CPU."""
    rows = [encoded.prompts[i] + encoded.completions[i] for i in indices]
    length = max(map(len, rows))
    ids = [row + (pad_token,) * (length - len(row)) for row in rows]
    mask = [(1,) * len(row) + (0,) * (length - len(row)) for row in rows]
    labels = [[IGNORED] * length for _ in rows]
    for label, row, i in zip(labels, rows, indices, strict=True):
        for span in encoded.counted(i):
            label[span.start : span.stop] = row[span.start : span.stop]
    return Batch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))


def training_order(count: int, *, seed: int, start: int, stop: int) -> list[int]:
    """The indices, of `count` examples, at the positions `start` to `stop` of a training.

    Each epoch has its own permutation, which depends on the seed and the epoch only. Batching does
    not change the order.
    """
    return [_permutation(count, seed, at // count)[at % count] for at in range(start, stop)]


def fixed_subset(count: int, size: int, *, seed: int) -> list[int]:
    """`size` of `count` indices in ascending order, equal for all trials of one seed."""
    drawn = random.Random(f"subset/{seed}/{count}").sample(range(count), min(size, count))
    return sorted(drawn)


def rung_questions(spec: TrialSpec, count: int, fraction: float) -> Sequence[int]:
    """The questions, of `count`, by which a rung is judged: at the last one all.

    Before it the same `eval_examples` for every trial that trains; of one that only answers, such a
    share of them as the rung is of the budget.
    """
    budget = spec.budget
    if fraction == max(budget.rungs):
        return range(count)
    chosen = fixed_subset(count, budget.eval_examples, seed=budget.seed)
    if spec.method.trains:
        return chosen
    size = max(1, round(fraction * len(chosen)))
    return [chosen[at] for at in fixed_subset(len(chosen), size, seed=budget.seed)]


def micro_batches(indices: Sequence[int], rows: int) -> list[list[int]]:
    """The indices in order, in lists of at most `rows`."""
    return [list(indices[at : at + rows]) for at in range(0, len(indices), rows)]


def longest_micro_batch(
    encoded: Encoded, order: Sequence[int], *, step_examples: int, rows: int
) -> list[int]:
    """The micro-batch of a training with the most tokens, padding included."""
    steps = micro_batches(order, step_examples)
    batches = [batch for chosen in steps for batch in micro_batches(chosen, rows)]
    return max(batches, key=lambda batch: len(batch) * max(map(encoded.length, batch)))


def length_sorted(lengths: Sequence[int], *, batch_size: int, known: int = 0) -> list[list[int]]:
    """The indices in batches by descending length; equal lengths keep their order.

    No row of a batch is less than half as long as its longest one, so that padding is less than
    half of it; the first `known` tokens, which are not computed, do not count.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        is_full = not batches or len(batches[-1]) == batch_size
        if is_full or 2 * (lengths[index] - known) < lengths[batches[-1][0]] - known:
            batches.append([])
        batches[-1].append(index)
    return batches


def largest_batch(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """The number of the batch with the most tokens, padding included; -1 without any."""
    sizes = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    return sizes.index(max(sizes)) if sizes else -1


@functools.lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(f"order/{seed}/{epoch}").shuffle(order)
    return tuple(order)
