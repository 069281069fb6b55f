"""The training loop of every method: one trial, from its spec to its summary.

`train` is a generator of events. Closing it stops the trial at any event: it first saves a
checkpoint, from which the next `train` of the same folder resumes as if it had not been stopped.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from safetensors import SafetensorError

from trainables.data.batches import rung_questions
from trainables.errors import Interrupted
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.resources.batch_fitting import predicted_batch_size
from trainables.resources.flops import rates_of
from trainables.resources.memory_peak import PeakMemory, reset_process_peak
from trainables.resources.out_of_memory import memory_errors
from trainables.spec.decoding import Decoding
from trainables.spec.events import Event
from trainables.storage.atomic_files import digest
from trainables.storage.errors import storage_errors
from trainables.training.cadence import Cadence
from trainables.training.checkpoint import seed_worker
from trainables.training.engine import less_activation_memory
from trainables.training.full_evaluation import evaluate_prompted, evaluate_untrained
from trainables.training.progress import Progress
from trainables.training.steps import OptimizerSteps
from trainables.training.summary import finish
from trainables.training.trial import TrialContext


class TrainingFailedError(RuntimeError):
    """The training can't continue; its last checkpoint is kept."""


def train(trial: TrialContext) -> Generator[Event, None, None]:
    """Trains a trial, or only evaluates a baseline, and yields its events.

    Resumes from the folder's last checkpoint if there is one; events before it are not yielded
    again (see `resumed_history`). With the event "finished" the folder holds the adapter, the
    predictions and the summary, and no checkpoint. The base is restored.

    Raises TrainingFailedError (a loss that is not finite), DoesNotFitError or
    torch.OutOfMemoryError (the device), InputError (the data), and Interrupted, after a checkpoint
    of the last optimizer step, if the trial's heartbeat does.
    """
    method = trial.method
    if not method.trains:
        yield from evaluate_untrained(trial) if method.is_baseline else evaluate_prompted(trial)
        return
    model = method.attach(trial.base.model, seed=trial.spec.knobs["seed"], in_place=trial.in_place)
    seed_worker(trial.spec.knobs["seed"], rank=trial.process_group.rank)
    wanted = trial.spec.knobs["gradient_checkpointing"]
    try:
        with memory_errors(), less_activation_memory(model, wanted=wanted):
            yield from _Training(trial, model).events()
    finally:
        if not trial.in_place:
            method.detach(model).eval()


class _Training:
    """One attempt at a trial: the model in training and its progress."""

    def __init__(self, trial: TrialContext, model: Any) -> None:
        self._trial = trial
        self._model = model
        self._budget = trial.spec.budget
        self._process_group = trial.process_group
        self._steps = OptimizerSteps(trial, model)
        self._engine = self._steps.engine
        self._progress = Progress()
        self._rates = rates_of(trial.folder.estimate())
        self._saved_step: int | None = None
        self._cadence = Cadence(
            self._budget, trial.spec.execution, process_group=trial.process_group
        )

    def events(self) -> Generator[Event, None, None]:
        self._begin()
        try:
            yield from self._pending_rung()
            while self._progress.units < self._budget.train_examples:
                with self._progress.timed("train_seconds"):
                    self._steps.take(self._progress, self._rates, check=self._check_finite)
                self._trial.heartbeat()
                event = self._due_event()
                if event is not None:
                    yield event
        except (GeneratorExit, Interrupted):
            if self._saved_step != self._progress.step and self._progress.step > 0:
                self._save()
            raise
        finished = self._finish()
        self._process_group.barrier()
        yield finished

    def _begin(self) -> None:
        reset_process_peak()
        self._model.train()
        last = self._engine.load_latest(self._trial.folder)
        if last is not None:
            self._progress = Progress.restored(last)
            self._saved_step = self._progress.step
        self._progress.begin_attempt(self._trial, can_count=self._rates is not None)
        reported_steps = sorted(self._trial.folder.reported_steps(after=self._progress.step))
        self._cadence.reported_steps = frozenset(self._process_group.broadcast(reported_steps))
        self._progress.trainable_parameters = self._engine.trainable_parameters
        device, peak = self._trial.base.device, self._progress.eval_peak_memory_bytes
        self._eval_peak = PeakMemory(self._model, device, at_least=peak)
        self._steps.begin(self._progress, is_resumed=last is not None)

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        last = "none" if self._saved_step is None else f"step {self._saved_step}"
        raise TrainingFailedError(
            f"Trial {self._trial.spec.trial_id[:6]} failed at step {self._progress.step + 1}: "
            f"loss is {loss}. Last checkpoint: {last}."
        )

    def _pending_rung(self) -> Iterator[Event]:
        """Evaluates a rung whose training was saved, but whose evaluation was interrupted."""
        if self._due_rungs():
            yield self._evaluate_rung(max(self._due_rungs()))

    def _due_rungs(self) -> list[float]:
        progress = self._progress
        return self._cadence.due_rungs(units=progress.units, evaluated=progress.fraction)

    def _due_event(self) -> Event | None:
        """The event after a step, if one is due; a checkpoint that is due includes it."""
        progress = self._progress
        if self._due_rungs():
            return self._evaluate_rung(max(self._due_rungs()))
        seen = progress.units / self._budget.train_examples
        event = None
        if self._cadence.is_time_to_report(progress.step):
            event = self._report("progress", self._training_metrics(), fraction=seen)
        if self._cadence.is_time_to_save():
            self._save()
        return event

    def _evaluate_rung(self, fraction: float) -> Event:
        progress, trial = self._progress, self._trial
        with progress.timed("eval_seconds"):  # first: an interruption must leave no event
            evaluation = self._evaluate(fraction)
        metrics = self._training_metrics()
        progress.predictions_sha256 = trial.folder.write_predictions(evaluation.predictions)
        progress.fraction = fraction
        progress.eval_peak_memory_bytes = int(self._process_group.max(self._eval_peak.bytes))
        progress.record_device_peaks(self._steps.peak, self._eval_peak)
        metrics |= evaluation.metrics | progress.memory_metrics() | progress.cost_metrics()
        event = self._report("rung", metrics, fraction=fraction)
        self._save()
        return event

    def _evaluate(self, fraction: float) -> Evaluation:
        trial = self._trial
        encoded = trial.data.split("selection")
        if fraction != max(self._budget.rungs):
            encoded = encoded.subset(rung_questions(trial.spec, len(encoded), fraction))
        execution, estimate = trial.spec.execution, trial.folder.estimate()
        rows = predicted_batch_size(estimate, limit=execution.eval_batch_size, key="eval_batch")
        evaluation = evaluate(
            self._model,
            trial.base,
            task=trial.data.task,
            encoded=encoded,
            execution=dataclasses.replace(execution, eval_batch_size=rows),
            peak=self._eval_peak,
            decoding=Decoding.of(trial.spec.knobs),
            after_batch=trial.heartbeat,
            may_shrink=self._process_group.size == 1,
        )
        self._progress.executed_eval_batch = evaluation.batch_size
        self._progress.count(self._rates, evaluation=evaluation.work * self._process_group.size)
        return evaluation

    def _training_metrics(self) -> dict[str, float]:
        progress = self._progress
        peak = max(self._steps.peak.bytes, self._engine.peak_bytes)
        progress.train_peak_memory_bytes = int(self._process_group.max(peak))
        rate = self._engine.learning_rate(progress.step - 1)
        return progress.take_training_metrics(learning_rate=rate)

    def _report(self, kind: Any, metrics: Mapping[str, float], *, fraction: float) -> Event:
        metrics, now = self._process_group.broadcast(dict(metrics)), self._trial.sample()
        event = self._progress.event(kind, metrics, fraction=fraction, system=now)
        self._cadence.event_reported()
        return event

    def _save(self) -> None:
        progress = self._progress
        progress.add_device_time()
        with progress.timed("other_seconds"):
            self._engine.save(
                self._trial.folder, step=progress.step, progress=dataclasses.asdict(progress)
            )
        self._saved_step = progress.step
        self._cadence.checkpoint_saved()

    def _finish(self) -> Event:
        trial, progress = self._trial, self._progress
        self._restore_predictions()
        started = time.perf_counter()
        with progress.timed("other_seconds"), storage_errors(trial.result_folder, SafetensorError):
            self._engine.export(trial.method, trial.folder, trial.base.tokenizer)
        progress.save_seconds = time.perf_counter() - started
        written = (file for file in trial.result_folder.rglob("*") if file.is_file())
        progress.checkpoint_bytes = sum(file.stat().st_size for file in written)
        return finish(trial, progress)

    def _restore_predictions(self) -> None:
        """Evaluates again if the predictions of the last rung were damaged after its checkpoint."""
        folder, progress = self._trial.folder, self._progress
        is_undamaged = digest(folder.predictions_file()) == progress.predictions_sha256
        if self._process_group.broadcast(is_undamaged):
            return
        with progress.timed("eval_seconds"):
            folder.write_predictions(self._evaluate(max(self._budget.rungs)).predictions)
