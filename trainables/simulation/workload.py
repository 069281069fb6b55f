"""What a trial will run, from the real token lengths of its task: its largest batches, and all of
them.

Batches are those of the training loop and of the evaluation. Lengths are what it takes: rows stand
for tokens by their lengths alone, so they are kept on disk in a few kilobytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainables.data.batches import fixed_subset, length_sorted, training_order
from trainables.resources.estimate import Workload
from trainables.resources.flops import ForwardBackward, Generation, batch_forward_backward
from trainables.simulation.token_lengths import Rows
from trainables.spec.knob_values import AUTO
from trainables.spec.knobs import step_examples
from trainables.spec.trial_spec import TrialSpec


@dataclass(frozen=True)
class PlannedWork:
    """The largest batches of a trial, and every batch that it will run."""

    workload: Workload
    training: tuple[ForwardBackward, ...]
    evaluation: tuple[ForwardBackward | Generation, ...]


def planned_work(
    spec: TrialSpec,
    splits: Mapping[str, Rows],
    *,
    micro_batch: int | None = None,
    eval_batch: int | None = None,
    positions: int | None = None,
) -> PlannedWork:
    """The work of a trial on `splits` of its task.

    `micro_batch` and `eval_batch`: rows at once, where they are not the spec's. `positions`: how
    many the model knows. An answer is taken to be as long as the right one when FLOPs are meant,
    and as long as it may be when memory is.
    """
    eval_rows = eval_batch or spec.execution.eval_batch_size
    training = tuple(_training(spec, splits["train"], micro_batch)) if _trains(spec) else ()
    evaluation = tuple(_evaluations(spec, splits, eval_rows))
    largest = max(
        training, key=lambda one: one.batch_size * one.length, default=ForwardBackward(1, 1, 1)
    )
    loss, answers = _largest_evaluation(spec, splits, eval_rows)
    room = spec.execution.max_new_tokens
    left = room if positions is None else max(1, positions - answers.prompt)
    workload = Workload(
        batch_size=largest.batch_size,
        sequence_length=largest.length,
        completion_tokens=_longest_completion(splits["train"]) if training else 1,
        logit_positions=max((one.positions for one in training), default=1),
        accumulated=bool(training) and largest.batch_size < _of_a_step(spec),
        eval_batch_size=loss.batch_size,
        eval_sequence_length=loss.length,
        eval_prompt_length=answers.prompt,
        eval_completion_tokens=_longest_completion(splits["selection"]),
        eval_logit_positions=loss.positions,
        new_tokens=min(room, left),
    )
    return PlannedWork(workload, training, evaluation)


def _trains(spec: TrialSpec) -> bool:
    return spec.method.trains


def _of_a_step(spec: TrialSpec) -> int:
    """Examples of an optimizer step on one worker."""
    return -(-step_examples(spec.knobs) // int(spec.knobs.get("workers", 1)))


def _training(spec: TrialSpec, rows: Rows, micro_batch: int | None) -> Iterator[ForwardBackward]:
    knobs = spec.knobs
    given = step_examples(knobs) if knobs["batch_size"] == AUTO else int(knobs["batch_size"])
    at_once = micro_batch or given
    total, each = spec.budget.train_examples, step_examples(knobs)
    order = training_order(len(rows), seed=knobs["seed"], start=0, stop=total)
    for step in range(0, total, each):
        chosen = order[step : step + each]
        for at in range(0, len(chosen), at_once):
            yield batch_forward_backward(rows, chosen[at : at + at_once])


def _evaluations(
    spec: TrialSpec, splits: Mapping[str, Rows], at_once: int
) -> Iterator[ForwardBackward | Generation]:
    if not _trains(spec):
        for name in ("selection", "report"):
            yield from _evaluation(spec, splits[name], range(len(splits[name])), at_once)
        return
    rows = splits["selection"]
    for fraction in _judged(spec):
        whole = fraction == max(spec.budget.rungs)
        asked: Sequence[int] = range(len(rows))
        if not whole:
            asked = fixed_subset(len(rows), spec.budget.eval_examples, seed=spec.budget.seed)
        yield from _evaluation(spec, rows, asked, at_once)


def _judged(spec: TrialSpec) -> list[float]:
    """The rungs that are judged: of those that one optimizer step reaches together, the last."""
    each, total = step_examples(spec.knobs), spec.budget.train_examples
    steps = {math.ceil(rung * total / each - 1e-9): rung for rung in sorted(spec.budget.rungs)}
    return list(steps.values())


def _evaluation(
    spec: TrialSpec, rows: Rows, asked: Sequence[int], at_once: int
) -> Iterator[ForwardBackward | Generation]:
    for batch in _batches([rows.length(index) for index in asked], asked, at_once):
        yield batch_forward_backward(rows, batch)
    for batch in _batches([len(rows.prompts[index]) for index in asked], asked, at_once):
        written = max(len(rows.completions[index]) for index in batch)
        yield Generation(
            batch_size=len(batch),
            prompt=max(len(rows.prompts[index]) for index in batch),
            new_tokens=min(written, spec.execution.max_new_tokens),
        )


def _batches(lengths: Sequence[int], asked: Sequence[int], at_once: int) -> Iterator[list[int]]:
    for batch in length_sorted(lengths, batch_size=at_once):
        yield [asked[at] for at in batch]


def _largest_evaluation(
    spec: TrialSpec, splits: Mapping[str, Rows], at_once: int
) -> tuple[ForwardBackward, Generation]:
    """The batch of the loss with the most positions and length of any, and that of the answers."""
    judged = [splits[name] for name in ("selection", "report") if name in splits]
    done = [
        one
        for rows in judged[: 1 if _trains(spec) else None]
        for one in _evaluation(spec, rows, range(len(rows)), at_once)
    ]
    losses = [one for one in done if isinstance(one, ForwardBackward)]
    answers = [one for one in done if isinstance(one, Generation)]
    longest = max(losses, key=lambda one: one.batch_size * one.length)
    widest = max(one.positions for one in losses)
    return (
        ForwardBackward(longest.batch_size, longest.length, widest),
        max(answers, key=lambda one: one.batch_size * one.prompt),
    )


def _longest_completion(rows: Rows) -> int:
    return max(map(len, rows.completions))
