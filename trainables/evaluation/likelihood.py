"""Answers by likelihood: of a question's choices the one that the model finds likeliest."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from trainables.data.batches import collate, length_sorted
from trainables.data.encoding import Encoded
from trainables.evaluation.batch import OneBatch
from trainables.evaluation.loss import row_log_likelihoods
from trainables.models.base import Base
from trainables.resources.flops import ForwardBackward, batch_forward_backward
from trainables.spec.trial_spec import Execution


def likeliest(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    wanted: Set[int] | None = None,
    per_token: bool = False,
) -> tuple[list[str], list[ForwardBackward]]:
    """The text of each question's likeliest choice, the first of equal ones, by index.

    Likelihoods are those of a choice's tokens after the prompt, without an end token; with
    `per_token` the mean over them decides and not the sum. `wanted` restricts the batches to those
    with a choice of one of its questions.
    """
    rows = encoded.of_choices()
    owners = [at for at, choices in enumerate(encoded.choices) for _ in choices]
    batches = length_sorted(
        [rows.length(at) for at in range(len(rows))], batch_size=execution.eval_batch_size
    )
    chosen = [
        batch
        for batch in batches
        if wanted is None or not wanted.isdisjoint({owners[at] for at in batch})
    ]
    scores = [float("-inf")] * len(rows)
    for number, indices in enumerate(chosen):
        with one_batch(representative=number == 0):
            batch = collate(rows, indices, pad_token=base.pad_token)
            found = row_log_likelihoods(model, batch, base).tolist()
        for at, value in zip(indices, found, strict=True):
            scores[at] = value / len(rows.completions[at]) if per_token else value
    return _best(encoded, scores), [batch_forward_backward(rows, batch) for batch in chosen]


def _best(encoded: Encoded, scores: list[float]) -> list[str]:
    texts, begin = [], 0
    for choices in encoded.choices:
        own = scores[begin : begin + len(choices)]
        texts.append(choices[own.index(max(own))].text if choices else "")
        begin += len(choices)
    return texts
