"""THE training loop: one trial, from its spec to its summary, for every method.

`train` is a generator of events. Whoever drives it may stop at any event by closing it: it saves a
checkpoint first, and the next `train` of the same folder goes on from there as if nothing had been.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Mapping
from typing import Any

from trainables import checkpoint
from trainables.checkpoint import Checkpoint
from trainables.cost import TensorPeak, measure_training, reset_process_peak
from trainables.data import collate, fixed_subset, training_order
from trainables.engine import Engine, less_activation_memory, memory_errors
from trainables.evaluate import Evaluation, evaluate
from trainables.judge import judge_untrained
from trainables.spec import Event
from trainables.summary import finish
from trainables.trial import Progress, Trial


class TrainingFailedError(RuntimeError):
    """The training can't go on; its last checkpoint stays."""


def train(trial: Trial) -> Generator[Event, None, None]:
    """Trains (or, for a baseline, only judges) a trial and yields what happens.

    Goes on from the folder's last checkpoint if there is one; events before it are not yielded
    again (see `resumed_history`). After the event "finished" the adapter, the predictions and the
    summary lie in the folder and its checkpoints are gone. The base is left as it was.

    Raises TrainingFailedError (a loss that is not finite), DoesNotFitError or
    torch.OutOfMemoryError (the device), InputError (the data).
    """
    method = trial.method
    if not method.trains:
        yield from judge_untrained(trial)
        return
    model = method.attach(trial.base.model, seed=trial.spec.knobs["seed"])
    wanted = trial.spec.knobs["gradient_checkpointing"]
    try:
        with memory_errors(), less_activation_memory(model, wanted=wanted):
            yield from _Training(trial, model).events()
    finally:
        method.detach(model).eval()


class _Training:
    """One attempt at a trial: the model in training and how far it has come."""

    def __init__(self, trial: Trial, model: Any) -> None:
        self._trial = trial
        self._model = model
        self._knobs = trial.spec.knobs
        self._budget = trial.spec.budget
        self._data = trial.data.split("train")
        self._step_examples = self._knobs["batch_size"] * self._knobs["gradient_accumulation"]
        self._engine = self._new_engine()
        self._progress = Progress()
        self._saved_step: int | None = None
        self._last_event = self._last_save = time.monotonic()

    def events(self) -> Generator[Event, None, None]:
        self._begin()
        try:
            while self._progress.units < self._budget.train_examples:
                with self._progress.timed("train_seconds"):
                    self._train_step()
                event = self._due_event()
                if event is not None:
                    yield event
        except GeneratorExit:
            if self._saved_step != self._progress.step and self._progress.step > 0:
                self._save()
            raise
        yield self._finish()

    def _begin(self) -> None:
        reset_process_peak()
        self._model.train()
        last = checkpoint.load_latest(self._trial.folder.checkpoints_folder)
        if last is not None:
            self._engine.restore(last.tensors, last.state["engine"])
            self._progress = Progress(**last.state["progress"])
            self._saved_step = last.step
        self._progress.attempts += 1
        device = self._trial.base.device
        seen = self._progress.train_peak_memory_bytes
        self._train_peak = TensorPeak(self._model, device, at_least=seen, with_everything=True)
        seen = self._progress.eval_peak_memory_bytes
        self._eval_peak = TensorPeak(self._model, device, at_least=seen)
        if last is None and device.type == "cpu":
            with self._progress.timed("other_seconds"):
                self._measure()

    def _measure(self) -> None:
        longest = collate(self._data, self._longest_batch(), pad_token=self._trial.base.pad_token)
        accumulated = self._knobs["gradient_accumulation"] > 1
        spent = self._new_engine()
        measure_training(spent, longest, accumulated=accumulated, peak=self._train_peak)

    def _train_step(self) -> None:
        """One optimizer step over the next accumulated batch."""
        progress, pad = self._progress, self._trial.base.pad_token
        stop = min(progress.units + self._step_examples, self._budget.train_examples)
        chosen = self._order(progress.units, stop)
        tokens = sum(len(self._data.completions[index]) for index in chosen)
        with self._train_peak.over(representative=False):
            loss = sum(
                self._engine.accumulate(
                    collate(self._data, indices, pad_token=pad), completion_tokens=tokens
                )
                for indices in self._micro_batches(chosen)
            )
            self._check_finite(loss)
            self._engine.step(progress.step)
        progress.step += 1
        progress.units = stop
        progress.tokens_seen += sum(self._data.length(index) for index in chosen)
        progress.loss_sum += loss
        progress.loss_tokens += tokens

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        last = "none" if self._saved_step is None else f"step {self._saved_step}"
        raise TrainingFailedError(
            f"Trial {self._trial.spec.trial_id[:6]} failed at step {self._progress.step + 1}: "
            f"loss is {loss}. Last checkpoint: {last}."
        )

    def _due_event(self) -> Event | None:
        """What is to be told after a step, if anything; what is saved then tells of it too."""
        progress, execution = self._progress, self._trial.spec.execution
        seen = progress.units / self._budget.train_examples
        due = [rung for rung in self._budget.rungs if progress.fraction < rung <= seen + 1e-9]
        if due:
            return self._judge(max(due))
        event = None
        if time.monotonic() - self._last_event >= execution.progress_seconds:
            event = self._tell("progress", self._training_metrics(), fraction=seen)
        if time.monotonic() - self._last_save >= execution.checkpoint_seconds:
            self._save()
        return event

    def _judge(self, fraction: float) -> Event:
        progress, trial = self._progress, self._trial
        metrics = self._training_metrics()
        with progress.timed("eval_seconds"):
            evaluation = self._evaluate(whole=fraction == max(self._budget.rungs))
        trial.folder.write_predictions(evaluation.predictions)
        progress.fraction = fraction
        progress.eval_peak_memory_bytes = self._eval_peak.bytes
        metrics |= evaluation.metrics | progress.memory_metrics()
        event = self._tell("rung", metrics, fraction=fraction)
        self._save()
        return event

    def _evaluate(self, *, whole: bool) -> Evaluation:
        trial = self._trial
        encoded = trial.data.split("selection")
        if not whole:
            budget = self._budget
            asked = fixed_subset(len(encoded), budget.eval_examples, seed=budget.seed)
            encoded = encoded.subset(asked)
        return evaluate(
            self._model,
            trial.base,
            task=trial.data.task,
            encoded=encoded,
            execution=trial.spec.execution,
            peak=self._eval_peak,
            after_batch=trial.heartbeat,
        )

    def _training_metrics(self) -> dict[str, float]:
        """Of the time since the last event; the next one starts anew."""
        progress = self._progress
        progress.train_peak_memory_bytes = self._train_peak.bytes
        metrics = {
            "train_loss": progress.loss_sum / max(1, progress.loss_tokens),
            "learning_rate_now": self._engine.learning_rate(progress.step - 1),
            "examples_per_second": progress.units / progress.train_seconds,
            "tokens_seen": float(progress.tokens_seen),
            "train_peak_memory_bytes": float(progress.train_peak_memory_bytes),
        }
        progress.loss_sum, progress.loss_tokens = 0.0, 0
        return metrics

    def _tell(self, kind: Any, metrics: Mapping[str, float], *, fraction: float) -> Event:
        event = self._progress.event(kind, metrics, fraction=fraction)
        self._last_event = time.monotonic()
        return event

    def _save(self) -> None:
        progress = self._progress
        with progress.timed("other_seconds"):
            state = {"engine": self._engine.state(), "progress": dataclasses.asdict(progress)}
            made = Checkpoint(step=progress.step, state=state, tensors=self._engine.tensors())
            checkpoint.save(self._trial.folder.checkpoints_folder, made)
        self._saved_step = progress.step
        self._last_save = time.monotonic()

    def _finish(self) -> Event:
        trial = self._trial
        with self._progress.timed("other_seconds"):
            trial.method.save(self._model, trial.folder.adapter_folder)
        return finish(trial, self._progress)

    def _new_engine(self) -> Engine:
        total_steps = math.ceil(self._budget.train_examples / self._step_examples)
        return Engine(self._model, self._trial.base, self._knobs, total_steps=total_steps)

    def _order(self, start: int, stop: int) -> list[int]:
        return training_order(len(self._data), seed=self._knobs["seed"], start=start, stop=stop)

    def _micro_batches(self, chosen: list[int]) -> list[list[int]]:
        size = self._knobs["batch_size"]
        return [chosen[at : at + size] for at in range(0, len(chosen), size)]

    def _longest_batch(self) -> list[int]:
        """The micro-batch of the whole training with the most tokens, padding included."""
        batches = self._micro_batches(self._order(0, self._budget.train_examples))
        return max(batches, key=lambda batch: len(batch) * max(map(self._data.length, batch)))
