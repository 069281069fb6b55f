"""OptimizerSteps: the optimizer steps of one attempt at a trial, in micro-batches that fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trainables.data.batches import (
    Batch,
    collate,
    longest_micro_batch,
    micro_batches,
    training_order,
)
from trainables.resources.batch_fitting import BatchShrinker
from trainables.resources.flops import WorkRates, batch_forward_backward
from trainables.resources.memory_peak import PeakMemory
from trainables.spec.knobs import step_examples
from trainables.training.checkpoint import rng_states, set_rng_states
from trainables.training.engine import Engine
from trainables.training.engines import make_engine
from trainables.training.peak_step import measure_training
from trainables.training.process_group import share
from trainables.training.progress import Progress
from trainables.training.trial import TrialContext


class OptimizerSteps:
    """Takes a trial's optimizer steps with its `engine`, in the order of its data.

    `begin` must be called first, after the engine has restored a checkpoint. `peak` measures the
    memory of the steps.
    """

    peak: PeakMemory

    def __init__(self, trial: TrialContext, model: Any) -> None:
        self._trial = trial
        self._model = model
        self._knobs = trial.spec.knobs
        self._data = trial.data.split("train")
        self._process_group = trial.process_group
        self._step_examples = step_examples(self._knobs)
        self._fitting = BatchShrinker.for_training(
            self._knobs["batch_size"], trial.folder.estimate(), limit=self._step_examples
        )
        self.engine = make_engine(
            model,
            trial.base,
            self._knobs,
            total_steps=self._total_steps,
            process_group=self._process_group,
        )

    def begin(self, progress: Progress, *, is_resumed: bool) -> None:
        """Continues with the batch size and the peak of `progress`; measures a new trial on a CPU.

        Raises DoesNotFitError or torch.OutOfMemoryError if not even one example fits.
        """
        self._fitting.batch_size = progress.executed_batch_size or self._fitting.batch_size
        device, peak = self._trial.base.device, progress.train_peak_memory_bytes
        self.peak = PeakMemory(self._model, device, at_least=peak, with_everything=True)
        if not is_resumed and device.type == "cpu" and isinstance(self.engine, Engine):
            with progress.timed("other_seconds"):
                self._measure()

    def take(
        self, progress: Progress, rates: WorkRates | None, *, check: Callable[[float], None]
    ) -> None:
        """Takes the next step and records it; calls `check` with its loss before weights change."""
        stop = min(progress.units + self._step_examples, self._trial.spec.budget.train_examples)
        chosen = self._order(progress.units, stop)
        tokens = self._data.counted_tokens(chosen)
        loss = self._process_group.sum(self._accumulate(chosen, tokens))
        check(loss)
        with self.peak.measure(representative=False):
            self.engine.step(progress.step)
        seen = sum(self._data.length(index) for index in chosen)
        progress.step_done(units=stop, tokens=seen, loss=loss, loss_tokens=tokens)
        self._count(progress, rates, chosen)

    def _measure(self) -> None:
        """Measures the longest micro-batch: if it does not fit, that is known before training."""

        def attempt(rows: int) -> None:
            indices = longest_micro_batch(
                self._data,
                self._order(0, self._trial.spec.budget.train_examples),
                step_examples=self._step_examples,
                rows=rows,
            )
            longest = collate(self._data, indices, pad_token=self._trial.base.pad_token)
            accumulated = rows < math.ceil(self._step_examples / self._process_group.size)
            engine = Engine(
                self._model,
                self._trial.base,
                self._knobs,
                total_steps=self._total_steps,
                process_group=self._process_group,
            )
            measure_training(engine, longest, accumulated=accumulated, peak=self.peak)

        self._fitting.fit(attempt)

    def _accumulate(self, chosen: list[int], tokens: int) -> float:
        """Computes the gradients of a step in micro-batches; returns its summed loss."""
        engine = self.engine
        states = rng_states(engine.device)

        def attempt(rows: int) -> float:
            mine = share(chosen, self._process_group, rows=rows)
            with self.peak.measure(representative=False):
                return sum(
                    engine.accumulate(
                        self._batch(of, instead=chosen[:1]),
                        completion_tokens=tokens,
                        is_last=number == len(mine),
                    )
                    for number, of in enumerate(mine, start=1)
                )

        def undo() -> None:
            engine.drop_gradients()
            set_rng_states(states, engine.device)

        return self._fitting.fit(attempt, undo=undo)

    def _batch(self, indices: list[int], *, instead: list[int]) -> Batch:
        """The batch of these examples; a worker without any computes on `instead`, with no loss."""
        batch = collate(self._data, indices or instead, pad_token=self._trial.base.pad_token)
        return batch if indices else batch.silent()

    def _count(self, progress: Progress, rates: WorkRates | None, chosen: list[int]) -> None:
        """Adds the FLOPs of all workers, and records the batch size that fitted."""
        size, rows = self._process_group.size, self._fitting.batch_size
        batches = [
            batch for rank in range(size) for batch in micro_batches(chosen[rank::size], rows)
        ]
        work = [batch_forward_backward(self._data, batch) for batch in batches]
        progress.count(rates, training=work)
        progress.executed_batch_size = rows
        progress.executed_gradient_accumulation = math.ceil(self._step_examples / (rows * size))

    @property
    def _total_steps(self) -> int:
        return math.ceil(self._trial.spec.budget.train_examples / self._step_examples)

    def _order(self, start: int, stop: int) -> list[int]:
        return training_order(len(self._data), seed=self._knobs["seed"], start=start, stop=stop)
