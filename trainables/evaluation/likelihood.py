"""Answers by likelihood: of a question's choices the one that the model finds likeliest.

A prompt is computed once for all of its choices where the model's states can be kept
(`trainables.models.states`), else once for each.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import torch
from torch.nn import functional

from trainables.data.batches import IGNORED, collate, largest_batch, length_sorted
from trainables.data.encoding import Encoded
from trainables.evaluation.batch import OneBatch
from trainables.evaluation.generation import padded_prompts
from trainables.evaluation.loss import row_log_likelihoods
from trainables.models.base import Base
from trainables.models.states import States, has_states, inputs_after, states_of
from trainables.resources.flops import ForwardBackward, batch_forward_backward, choice_passes
from trainables.spec.trial_spec import Execution

_Scores = list[list[float]]  # of each question, of each of its choices


def likeliest(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    begun: States | None = None,
    wanted: Set[int] | None = None,
    per_token: bool = False,
) -> tuple[list[str], list[ForwardBackward]]:
    """The text of each question's likeliest choice, the first of equal ones, by index.

    Likelihoods are those of a choice's tokens after the prompt, without an end token; with
    `per_token` the mean over them decides and not the sum. `begun`: the states of the tokens with
    which all prompts begin. `wanted` restricts the batches to those with a choice of one of its
    questions.
    """
    if has_states(base.model.config):
        scores, work = _after_prompts(
            model, base, encoded, execution, one_batch, begun=begun, wanted=wanted
        )
    else:
        scores, work = _in_rows(model, base, encoded, execution, one_batch, wanted=wanted)
    return _best(encoded, scores, per_token=per_token), work


def continued_log_likelihoods(
    model: Any, states: States, last: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """For each row the sum of the log-likelihoods of its `labels` (rows, length), in float32.

    `states`: those of the tokens before the `last` one (rows, 1), which precedes the labels.
    IGNORED labels, at the end of a row, do not count.
    """
    given = torch.cat([last, labels[:, :-1].clamp(min=0)], dim=1)
    inputs = inputs_after(states, given, (labels != IGNORED).long())
    cache = states.lent(len(labels))
    logits = model(**inputs, past_key_values=cache, use_cache=True).logits
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return -losses.view(labels.shape).sum(dim=1)


def _after_prompts(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    begun: States | None,
    wanted: Set[int] | None,
) -> tuple[_Scores, list[ForwardBackward]]:
    known = begun.length if begun else 0
    lengths = list(map(len, encoded.prompts))
    batches = length_sorted(lengths, batch_size=execution.eval_batch_size, known=known)
    chosen = [each for each in batches if wanted is None or not wanted.isdisjoint(each)]
    largest = largest_batch(lengths, chosen)
    scores: _Scores = [[] for _ in lengths]
    work = []
    for number, indices in enumerate(chosen):
        choices = [[choice.tokens for choice in encoded.choices[at]] for at in indices]
        with one_batch(representative=number == largest):
            prompts = [encoded.prompts[at] for at in indices]
            found = _batch_scores(model, base, prompts, choices, begun)
        for at, own in zip(indices, found, strict=True):
            scores[at] = own
        counts = [list(map(len, own)) for own in choices]
        work += choice_passes([lengths[at] for at in indices], counts, known=known)
    return scores, work


def _batch_scores(
    model: Any,
    base: Base,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    begun: States | None,
) -> _Scores:
    """All first choices are scored in a pass, then all second ones, and so on."""
    known = begun.length if begun else 0
    ids, mask = padded_prompts(prompts, base, known=known)
    states = states_of(model, ids[:, known:-1], mask[:, known:-1], begun)
    found = []
    for place in range(max(map(len, choices))):
        rows = [own[place] if place < len(own) else () for own in choices]
        longest = max(map(len, rows))
        labels = [[*row, *[IGNORED] * (longest - len(row))] for row in rows]
        given = torch.tensor(labels, device=base.device)
        found.append(continued_log_likelihoods(model, states, ids[:, -1:], given).tolist())
    of_rows = zip(*found, strict=True)
    return [list(row)[: len(own)] for row, own in zip(of_rows, choices, strict=True)]


def _in_rows(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    wanted: Set[int] | None,
) -> tuple[_Scores, list[ForwardBackward]]:
    """Each choice is a row with its prompt."""
    rows = encoded.of_choices()
    owners = [at for at, choices in enumerate(encoded.choices) for _ in choices]
    lengths = [rows.length(at) for at in range(len(rows))]
    chosen = [
        batch
        for batch in length_sorted(lengths, batch_size=execution.eval_batch_size)
        if wanted is None or not wanted.isdisjoint({owners[at] for at in batch})
    ]
    largest = largest_batch(lengths, chosen)
    flat = [float("-inf")] * len(rows)
    for number, indices in enumerate(chosen):
        with one_batch(representative=number == largest):
            batch = collate(rows, indices, pad_token=base.pad_token)
            found = row_log_likelihoods(model, batch, base).tolist()
        for at, value in zip(indices, found, strict=True):
            flat[at] = value
    values = iter(flat)
    scores = [[next(values) for _ in choices] for choices in encoded.choices]
    return scores, [batch_forward_backward(rows, batch) for batch in chosen]


def _best(encoded: Encoded, scores: _Scores, *, per_token: bool) -> list[str]:
    texts = []
    for choices, own in zip(encoded.choices, scores, strict=True):
        counts = [len(choice.tokens) if per_token else 1 for choice in choices]
        means = [value / count for value, count in zip(own, counts, strict=False)]
        texts.append(choices[means.index(max(means))].text if means else "")
    return texts
