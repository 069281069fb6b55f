"""The batches that a trial will run, from the token lengths of its task, and the largest of them.

Batches are made by the functions of the training loop and of the evaluation, from lengths alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trainables.data.batches import length_sorted, rung_questions, training_order
from trainables.data.token_lengths import SplitLengths
from trainables.resources.estimate import Workload
from trainables.resources.flops import (
    ForwardBackward,
    Generation,
    batch_forward_backward,
    choice_passes,
)
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
    keeps_states: bool = True,
) -> PlannedWork:
    """The work of a trial on `splits` of its task.

    `micro_batch` and `eval_batch` replace the batch sizes of the spec. `positions`: the most that
    the model supports. `keeps_states`: see `trainables.models.states`. For FLOPs an answer has the
    length of the gold answer, for memory the greatest length allowed.
    """
    asking = _Asking(
        eval_batch or spec.execution.eval_batch_size,
        max_new_tokens=spec.execution.max_new_tokens,
        keeps_states=keeps_states,
        decoding=Decoding.of(spec.knobs),
    )
    training = tuple(_training(spec, splits["train"], micro_batch)) if _trains(spec) else ()
    evaluation = tuple(_evaluations(spec, splits, asking))
    largest = max(
        training, key=lambda one: one.batch_size * one.length, default=ForwardBackward(1, 1, 1)
    )
    evaluated = splits["selection"].without_too_long()
    loss = _largest_loss(evaluated, asking)
    answers = _largest_answers(evaluated, asking)
    room = spec.execution.max_new_tokens if answers and not answers.choice_tokens else 0
    left = room if positions is None or not answers else max(1, positions - answers.prompt)
    workload = Workload(
        batch_size=largest.batch_size,
        sequence_length=largest.length,
        completion_tokens=_longest_completion(splits["train"]) if training else 1,
        logit_positions=max((one.positions for one in training), default=1),
        loss_tokens=max((one.loss_tokens for one in training), default=1),
        accumulated=bool(training) and largest.batch_size < _worker_step_examples(spec),
        eval_batch_size=loss.batch_size,
        eval_sequence_length=loss.length,
        eval_prompt_length=answers.prompt if answers else None,
        eval_completion_tokens=_longest_completion(splits["selection"]),
        eval_logit_positions=loss.positions,
        eval_loss_tokens=loss.loss_tokens,
        new_tokens=min(room, left),
        eval_answers=answers.batch_size if answers else None,
        eval_beginning=asking.known(evaluated),
        eval_choice_tokens=answers.choice_tokens if answers else 0,
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
    spec: TrialSpec, splits: Mapping[str, SplitLengths], asking: _Asking
) -> Iterator[ForwardBackward | Generation]:
    if spec.role == BASELINE:
        for name in ("selection", "report"):
            yield from asking.work(splits[name], range(len(splits[name])))
        return
    split = splits["selection"]
    for fraction in _evaluated_rungs(spec):
        yield from asking.work(split, rung_questions(spec, len(split), fraction))


def _evaluated_rungs(spec: TrialSpec) -> list[float]:
    """Of the rungs that an optimizer step reaches at once only the last is evaluated."""
    if not _trains(spec):
        return sorted(spec.budget.rungs)
    each, total = step_examples(spec.knobs), spec.budget.train_examples
    steps = {math.ceil(rung * total / each - 1e-9): rung for rung in sorted(spec.budget.rungs)}
    return list(steps.values())


@dataclass(frozen=True)
class _Answers:
    """A batch of answers: the tokens of its longest prompt, and of the longest choice; 0 if answers
    are written."""

    batch_size: int
    prompt: int
    choice_tokens: int


@dataclass(frozen=True)
class _Asking:
    """How the questions of a split are asked."""

    batch_size: int
    max_new_tokens: int
    keeps_states: bool
    decoding: Decoding

    def known(self, split: SplitLengths) -> int:
        """The tokens at the beginning of all rows that are computed once."""
        return split.beginning if self.keeps_states else 0

    def work(
        self, split: SplitLengths, questions: Sequence[int]
    ) -> Iterator[ForwardBackward | Generation]:
        """What `evaluate` does for these questions."""
        asked = split.subset([index for index in questions if split.prompts[index]])
        known = self.known(split)
        if known and len(asked):
            yield ForwardBackward(1, known, 1)
        for batch in self.losses(asked):
            yield batch_forward_backward(asked, batch, known=known)
        if split.choices and not self.keeps_states:
            for batch in self.losses(rows := asked.of_choices()):
                yield batch_forward_backward(rows, batch)
            return
        for batch in self.answers(asked):
            prompts = [len(asked.prompts[index]) for index in batch]
            if split.choices:
                choices = [list(map(len, asked.choices[index])) for index in batch]
                yield from choice_passes(prompts, choices, known=known)
                continue
            gold = max(len(asked.completions[index]) for index in batch)
            new_tokens = min(gold, self.max_new_tokens)
            count = len(batch) * self.decoding.beams
            yield from [Generation(count, max(prompts), new_tokens, known)] * self.decoding.votes

    def losses(self, rows: SplitLengths) -> list[list[int]]:
        lengths = list(map(rows.length, range(len(rows))))
        return length_sorted(lengths, batch_size=self.batch_size, known=self.known(rows))

    def answers(self, asked: SplitLengths) -> list[list[int]]:
        lengths, size = list(map(len, asked.prompts)), self.batch_size
        at_once = size if asked.choices else self.decoding.questions_at_once(size)
        return length_sorted(lengths, batch_size=at_once, known=self.known(asked))


def _largest_loss(split: SplitLengths, asking: _Asking) -> ForwardBackward:
    """The size of the largest batch of a loss, with the most positions and tokens of any.

    `split` is the selection split, in which evaluation memory is measured, also that of a baseline,
    which the report split does not enter.
    """
    passes = [
        batch_forward_backward(rows, batch)
        for rows in (split, *(() if asking.keeps_states else (split.of_choices(),)))
        for batch in asking.losses(rows)
    ]
    longest = max(passes, key=lambda one: one.batch_size * one.length)
    widest, counted = (max(each) for each in zip(*map(_counted, passes), strict=True))
    return replace(longest, positions=widest, loss_tokens=counted)


def _counted(one: ForwardBackward) -> tuple[int, int]:
    return one.positions, one.loss_tokens


def _largest_answers(split: SplitLengths, asking: _Asking) -> _Answers | None:
    """The largest batch of answers; None if each choice is a row with its prompt."""
    if split.choices and not asking.keeps_states:
        return None
    found = [
        _Answers(
            batch_size=len(batch),
            prompt=max(len(split.prompts[index]) for index in batch),
            choice_tokens=max((len(one) for own in split.choices for one in own), default=0),
        )
        for batch in asking.answers(split)
    ]
    return max(found, key=lambda one: one.batch_size * one.prompt, default=None)


def _longest_completion(split: SplitLengths) -> int:
    """The most tokens of a row that have a loss."""
    return max(split.counted_tokens([at]) for at in range(len(split)))
