"""Evaluation: the loss on completions, and answers by batched generation or by likelihood.

Batches are sorted by length, the longest first; predictions are in the order of the data. What all
prompts of a split begin with is computed once. On a CPU the answers of an unquantized or 4-bit
model do not depend on the batch size; those of an int8 model may, because its outlier columns are
those of the whole batch. Draws do not depend on the batch: see `trainables.evaluation.decoding`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainables.data.batches import collate, largest_batch, length_sorted
from trainables.data.encoding import Encoded
from trainables.evaluation.batch import OneBatch
from trainables.evaluation.decoding import GREEDY, Draw
from trainables.evaluation.generation import generate, generation_batches, room_for_answer
from trainables.evaluation.likelihood import likeliest
from trainables.evaluation.loss import summed_loss
from trainables.evaluation.voting import elected
from trainables.models.base import Base
from trainables.models.states import States, has_states, states_of
from trainables.resources.batch_fitting import BatchShrinker
from trainables.resources.flops import ForwardBackward, Generation, batch_forward_backward
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.decoding import Decoding
from trainables.spec.metric import EVAL_LOSS
from trainables.spec.trial_spec import Execution
from trainables.tasks.task import Answering, Example, Task

_Work = tuple[ForwardBackward | Generation, ...]
_Drawn = tuple[str, ...]  # the answers to one question, in the order in which they were drawn
_NOTHING: _Drawn = ("",)


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating a model on some questions.

    `metrics`: eval_loss (mean over completion tokens), those of the task, and under the task's
    `count_key` the number of questions. `predictions`: a row for each question, in the data's
    order. `work`: the batches that ran, without those that did not fit. `batch_size`: the number of
    questions in a batch that fitted.
    """

    metrics: dict[str, float]
    predictions: list[dict[str, Any]]
    work: tuple[ForwardBackward | Generation, ...] = ()
    batch_size: int = 0


def evaluate(
    model: Any,
    base: Base,
    *,
    task: Task,
    encoded: Encoded,
    execution: Execution,
    peak: PeakMemory,
    decoding: Decoding = GREEDY,
    after_batch: Callable[[], None] = lambda: None,
    may_shrink: bool = True,
) -> Evaluation:
    """Evaluates `model`, an adapted `base`, on `encoded`; restores its mode afterwards.

    Answers that are written are those of `decoding`.

    Does not advance random generators. `peak` records the memory of the longest batches.
    `after_batch` is called after every batch of the loss and of the answers, and after the pass
    over what all prompts begin with. If batches of
    `execution.eval_batch_size` do not fit and `may_shrink`, it starts again with half as many
    questions per batch. One of several workers must not: the others would wait for it. A question
    that is too long is not asked: it counts as one without an answer, and not in the loss.
    """
    asked = encoded.subset(encoded.fitting)
    one_batch = functools.partial(_one_batch, peak, after_batch)
    answers = _answering(task, decoding)

    def attempt(rows: int) -> tuple[float, list[_Drawn], _Work]:
        fitting = replace(execution, eval_batch_size=rows)
        with _evaluating(model, base):
            begun, first = _begun(model, base, asked, one_batch)
            with peak.holding(begun.bytes if begun else 0):
                loss, passes = _mean_loss(model, base, asked, fitting, one_batch, begun=begun)
                texts, rest = answers(model, base, asked, fitting, one_batch, begun=begun)
            return loss, texts, (*first, *passes, *rest)

    fitting = BatchShrinker(execution.eval_batch_size, may_shrink=may_shrink)
    loss, completions, work = fitting.fit(attempt)
    written = dict(zip(encoded.fitting, completions, strict=True))
    rows = [
        _row(task, example, written.get(index, _NOTHING), encoded.shots_of(index))
        for index, example in enumerate(encoded.examples)
    ]
    scores = [row["scores"] for row in rows]
    measured, count = task.aggregate(scores), {task.used_metrics.count_key: float(len(rows))}
    metrics = {EVAL_LOSS.name: loss, **measured, **count}
    return Evaluation(metrics, [_flat(row) for row in rows], work, fitting.batch_size)


def answer(
    model: Any,
    base: Base,
    *,
    task: Task,
    encoded: Encoded,
    asked: Sequence[int],
    execution: Execution,
    decoding: Decoding = GREEDY,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[list[dict[str, Any]], _Work]:
    """The rows of `Evaluation.predictions` for the questions with these indices, in that order, and
    the batches that were answered for them.

    The batches are those of `evaluate`, if `execution` has the batch size with which it ended, so
    that the answers are the same even if they depend on the batch. Else as `evaluate`.
    """
    answers = _answering(task, decoding)
    read = encoded.subset(encoded.fitting)
    places = {index: place for place, index in enumerate(encoded.fitting)}
    wanted = frozenset(places[index] for index in asked if index in places)

    def attempt(rows: int) -> tuple[list[_Drawn], Sequence[Any]]:
        fitting = replace(execution, eval_batch_size=rows)
        one_batch = functools.partial(_unmeasured_batch, after_batch)
        with _evaluating(model, base):
            begun, first = _begun(model, base, read, functools.partial(_unmeasured_batch, _nothing))
            texts, rest = answers(model, base, read, fitting, one_batch, begun=begun, wanted=wanted)
            return texts, (*first, *rest)

    texts, work = BatchShrinker(execution.eval_batch_size).fit(attempt)
    written = {index: texts[place] for index, place in places.items()}
    rows = [
        _row(task, encoded.examples[index], written.get(index, _NOTHING), encoded.shots_of(index))
        for index in asked
    ]
    return [_flat(row) for row in rows], tuple(work)


@contextmanager
def _one_batch(
    peak: PeakMemory, after_batch: Callable[[], None], *, representative: bool
) -> Iterator[None]:
    with peak.measure(representative=representative):
        yield
    after_batch()


@contextmanager
def _unmeasured_batch(after_batch: Callable[[], None], *, representative: bool) -> Iterator[None]:
    del representative
    yield
    after_batch()


def _nothing() -> None:
    pass


@contextmanager
def _evaluating(model: Any, base: Base) -> Iterator[None]:
    training = model.training
    model.eval()
    mixed = base.compute_dtype != torch.float32
    autocast = torch.autocast(base.device.type, dtype=base.compute_dtype, enabled=mixed)
    try:
        with torch.no_grad(), autocast:
            yield
    finally:
        model.train(training)


def _begun(
    model: Any, base: Base, encoded: Encoded, one_batch: OneBatch
) -> tuple[States | None, list[ForwardBackward]]:
    """The states of the tokens with which all prompts begin, and the pass over them; None if they
    are not worth it or the model's can't be kept."""
    length = encoded.beginning
    if not length or not encoded.prompts or not has_states(base.model.config):
        return None, []
    ids = torch.tensor([encoded.prompts[0][:length]], device=base.device)
    with one_batch(representative=True):
        states = states_of(model, ids, torch.ones_like(ids))
    return states, [ForwardBackward(1, length, 1)]


def _mean_loss(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    begun: States | None,
) -> tuple[float, list[ForwardBackward]]:
    lengths = [encoded.length(index) for index in range(len(encoded))]
    known, total = begun.length if begun else 0, 0.0
    batches = length_sorted(lengths, batch_size=execution.eval_batch_size, known=known)
    largest = largest_batch(lengths, batches)
    for number, indices in enumerate(batches):
        with one_batch(representative=number == largest):
            batch = collate(encoded, indices, pad_token=base.pad_token)
            total += summed_loss(model, batch, base, begun=begun).item()
    passes = [batch_forward_backward(encoded, indices, known=known) for indices in batches]
    tokens = encoded.counted_tokens(range(len(encoded)))
    return total / tokens if tokens else math.nan, passes


def _answering(task: Task, decoding: Decoding) -> Callable[..., tuple[list[_Drawn], Sequence[Any]]]:
    """How the task's questions are answered; what a likelihood chooses is not decoded."""
    if task.answering is Answering.GENERATION:
        return functools.partial(_drawn, decoding=decoding)
    return functools.partial(_chosen, per_token=task.answering is Answering.LIKELIHOOD_PER_TOKEN)


def _chosen(*given: Any, **options: Any) -> tuple[list[_Drawn], list[ForwardBackward]]:
    texts, work = likeliest(*given, **options)
    return [(text,) for text in texts], work


def _drawn(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    begun: States | None = None,
    wanted: Set[int] | None = None,
    decoding: Decoding,
) -> tuple[list[_Drawn], list[Generation]]:
    """The answers of each question, one pass over the batches for each vote."""
    rows = decoding.questions_at_once(execution.eval_batch_size)
    at_once = replace(execution, eval_batch_size=rows)
    passes = [
        _completions(
            model, base, encoded, at_once, one_batch, begun=begun, wanted=wanted, draw=draw
        )
        for draw in (Draw(decoding, vote) for vote in range(decoding.votes))
    ]
    texts = list(zip(*(texts for texts, _ in passes), strict=True))
    return texts, [batch for _, work in passes for batch in work]


def _completions(
    model: Any,
    base: Base,
    encoded: Encoded,
    execution: Execution,
    one_batch: OneBatch,
    *,
    begun: States | None = None,
    wanted: Set[int] | None = None,
    draw: Draw,
) -> tuple[list[str], list[Generation]]:
    """The answers, by index; `wanted` restricts the batches to those with one of its indices."""
    texts = [""] * len(encoded)
    work = []
    known = begun.length if begun else 0
    batches = generation_batches(base, encoded, execution, known=known)
    chosen = [each for each in batches if wanted is None or not wanted.isdisjoint(each)]
    largest = largest_batch(list(map(len, encoded.prompts)), chosen)
    for number, indices in enumerate(chosen):
        with one_batch(representative=number == largest):
            prompts = [encoded.prompts[index] for index in indices]
            room = min(room_for_answer(base, prompt, execution) for prompt in prompts)
            asked = replace(draw, ids=tuple(encoded.examples[index].id for index in indices))
            written, generation = generate(
                model, base, prompts, room, stop=encoded.stop, draw=asked, begun=begun
            )
        work.append(generation)
        for index, text in zip(indices, written, strict=True):
            texts[index] = text
    return texts, work


def _row(task: Task, example: Example, drawn: _Drawn, shots: Sequence[str]) -> dict[str, Any]:
    text = elected(task, example, drawn)
    row: dict[str, Any] = {"id": example.id}
    if shots:
        row["shots"] = list(shots)
    if example.kind:
        row["kind"] = example.kind
    if "question" in example.record:
        row["question"] = example.record["question"]
    row |= {"drawn": list(drawn)} if len(drawn) > 1 else {}
    row |= {"prediction": text, "gold": task.gold(example), "slices": dict(task.slices(example))}
    return row | {"scores": task.score(example, text)}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {**{name: value for name, value in row.items() if name != "scores"}, **row["scores"]}
