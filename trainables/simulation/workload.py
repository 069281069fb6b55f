"""The batches that a trial will run, from the token lengths of its task, and the largest of them.

Batches are made by the functions of the training loop and of the evaluation, from lengths alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainables.data.batches import length_sorted, rung_questions, training_order
from trainables.data.token_lengths import SplitLengths
from trainables.resources.estimate import Workload
from trainables.resources.flops import ForwardBackward, Generation, batch_forward_backward
from trainables.spec.decoding import Decoding
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import step_examples
from trainables.spec.states import BASELINE
from trainables.spec.trial_spec import TrialSpec


@dataclass(frozen=True)
class PlannedWork:
    """The largest batches of a trial, and every batch that it will run."""

    workload: Workload
    training: tuple[ForwardBackward, ...]
    evaluation: tuple[ForwardBackward | Generation, ...]


def planned_work(
    spec: TrialSpec,
    splits: Mapping[str, SplitLengths],
    *,
    micro_batch: int | None = None,
    eval_batch: int | None = None,
    positions: int | None = None,
) -> PlannedWork:
    """The work of a trial on `splits` of its task.

    `micro_batch` and `eval_batch` replace the batch sizes of the spec. `positions`: the most that
    the model supports. For FLOPs an answer has the length of the gold answer, for memory the
    greatest length allowed.
    """
    eval_batch_size = eval_batch or spec.execution.eval_batch_size
    training = tuple(_training(spec, splits["train"], micro_batch)) if _trains(spec) else ()
    evaluation = tuple(_evaluations(spec, splits, eval_batch_size))
    largest = max(
        training, key=lambda one: one.batch_size * one.length, default=ForwardBackward(1, 1, 1)
    )
    loss, answers = _largest_evaluation(spec, splits["selection"], eval_batch_size)
    room = spec.execution.max_new_tokens
    prompt = answers.prompt if answers else None
    left = room if positions is None or prompt is None else max(1, positions - prompt)
    workload = Workload(
        batch_size=largest.batch_size,
        sequence_length=largest.length,
        completion_tokens=_longest_completion(splits["train"]) if training else 1,
        logit_positions=max((one.positions for one in training), default=1),
        loss_tokens=max((one.loss_tokens for one in training), default=1),
        accumulated=bool(training) and largest.batch_size < _worker_step_examples(spec),
        eval_batch_size=loss.batch_size,
        eval_sequence_length=loss.length,
        eval_prompt_length=prompt,
        eval_completion_tokens=_longest_completion(splits["selection"]),
        eval_logit_positions=loss.positions,
        eval_loss_tokens=loss.loss_tokens,
        new_tokens=min(room, left) if answers else 0,
    )
    return PlannedWork(workload, training, evaluation)


def _trains(spec: TrialSpec) -> bool:
    return spec.method.trains


def _worker_step_examples(spec: TrialSpec) -> int:
    """The examples of an optimizer step on one worker."""
    return -(-step_examples(spec.knobs) // int(spec.knobs.get("workers", 1)))


def _training(
    spec: TrialSpec, split: SplitLengths, micro_batch: int | None
) -> Iterator[ForwardBackward]:
    knobs = spec.knobs
    requested = step_examples(knobs) if knobs["batch_size"] == AUTO else int(knobs["batch_size"])
    batch_size = micro_batch or requested
    total, each = spec.budget.train_examples, step_examples(knobs)
    order = training_order(len(split), seed=knobs["seed"], start=0, stop=total)
    for step in range(0, total, each):
        chosen = order[step : step + each]
        for at in range(0, len(chosen), batch_size):
            yield batch_forward_backward(split, chosen[at : at + batch_size])


def _evaluations(
    spec: TrialSpec, splits: Mapping[str, SplitLengths], batch_size: int
) -> Iterator[ForwardBackward | Generation]:
    if spec.role == BASELINE:
        for name in ("selection", "report"):
            yield from _evaluation(spec, splits[name], range(len(splits[name])), batch_size)
        return
    split = splits["selection"]
    for fraction in _evaluated_rungs(spec):
        questions = rung_questions(spec, len(split), fraction)
        yield from _evaluation(spec, split, questions, batch_size)


def _evaluated_rungs(spec: TrialSpec) -> list[float]:
    """Of the rungs that an optimizer step reaches at once only the last is evaluated."""
    if not _trains(spec):
        return sorted(spec.budget.rungs)
    each, total = step_examples(spec.knobs), spec.budget.train_examples
    steps = {math.ceil(rung * total / each - 1e-9): rung for rung in sorted(spec.budget.rungs)}
    return list(steps.values())


def _evaluation(
    spec: TrialSpec, split: SplitLengths, questions: Sequence[int], batch_size: int
) -> Iterator[ForwardBackward | Generation]:
    questions = [index for index in questions if split.prompts[index]]  # others are too long
    lengths = [split.length(index) for index in questions]
    for batch in _batches(lengths, questions, batch_size):
        yield batch_forward_backward(split, batch)
    if split.choices:
        rows = split.subset(questions).of_choices()
        for batch in length_sorted(list(map(rows.length, range(len(rows)))), batch_size=batch_size):
            yield batch_forward_backward(rows, batch)
        return
    decoding = Decoding.of(spec.knobs)
    prompts = [len(split.prompts[index]) for index in questions]
    for batch in _batches(prompts, questions, decoding.questions_at_once(batch_size)):
        gold = max(len(split.completions[index]) for index in batch)
        answered = Generation(
            batch_size=len(batch) * decoding.beams,
            prompt=max(len(split.prompts[index]) for index in batch),
            new_tokens=min(gold, spec.execution.max_new_tokens),
        )
        yield from [answered] * decoding.votes


def _batches(
    lengths: Sequence[int], questions: Sequence[int], batch_size: int
) -> Iterator[list[int]]:
    for batch in length_sorted(lengths, batch_size=batch_size):
        yield [questions[at] for at in batch]


def _largest_evaluation(
    spec: TrialSpec, split: SplitLengths, batch_size: int
) -> tuple[ForwardBackward, Generation | None]:
    """A batch of the loss with the most positions and the largest size of any, and the largest
    batch of written answers, None if a likelihood decides.

    `split` is the selection split, in which evaluation memory is measured, also that of a baseline,
    which the report split does not enter.
    """
    batches = list(_evaluation(spec, split, range(len(split)), batch_size))
    losses = [one for one in batches if isinstance(one, ForwardBackward)]
    answers = [one for one in batches if isinstance(one, Generation)]
    longest = max(losses, key=lambda one: one.batch_size * one.length)
    widest = max(one.positions for one in losses)
    counted = max(one.loss_tokens for one in losses)
    return (
        ForwardBackward(longest.batch_size, longest.length, widest, counted),
        max(answers, key=lambda one: one.batch_size * one.prompt, default=None),
    )


def _longest_completion(split: SplitLengths) -> int:
    """The most tokens of a row that have a loss."""
    return max(split.counted_tokens([at]) for at in range(len(split)))
