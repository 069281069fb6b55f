"""THE training loop: one trial, from its spec to its summary, for every method.

`train` is a generator of events. Whoever drives it may stop at any event by closing it: it saves a
checkpoint first, and the next `train` of the same folder goes on from there as if nothing had been.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from trainables.data.batches import (
    Batch,
    collate,
    fixed_subset,
    longest_micro_batch,
    micro_batches,
    training_order,
)
from trainables.errors import Interrupted
from trainables.evaluation.evaluate import Evaluation, evaluate
from trainables.resources.batch_fitting import BatchShrinker, predicted_batch_size
from trainables.resources.flops import batch_forward_backward, rates_of
from trainables.resources.memory_peak import PeakMemory, reset_process_peak
from trainables.resources.out_of_memory import memory_errors
from trainables.spec.events import Event
from trainables.spec.knobs import step_examples
from trainables.storage.atomic_files import digest
from trainables.storage.errors import storage_errors
from trainables.training.cadence import Cadence
from trainables.training.checkpoint import draw_apart, rng_states, set_rng_states
from trainables.training.engine import Engine, less_activation_memory
from trainables.training.engines import make_engine
from trainables.training.full_evaluation import evaluate_untrained
from trainables.training.peak_step import measure_training
from trainables.training.process_group import share
from trainables.training.progress import Progress
from trainables.training.summary import finish
from trainables.training.trial import TrialContext

if TYPE_CHECKING:
    from trainables.training.deepspeed_engine import ShardedEngine


class TrainingFailedError(RuntimeError):
    """The training can't go on; its last checkpoint stays."""


def train(trial: TrialContext) -> Generator[Event, None, None]:
    """Trains (or, for a baseline, only judges) a trial and yields what happens.

    Goes on from the folder's last checkpoint if there is one; events before it are not yielded
    again (see `resumed_history`). After the event "finished" the adapter, the predictions and the
    summary lie in the folder and its checkpoints are gone. The base is left as it was.

    Raises TrainingFailedError (a loss that is not finite), DoesNotFitError or
    torch.OutOfMemoryError (the device), InputError (the data), and Interrupted, after a checkpoint
    of the last optimizer step, if the trial's heartbeat does.
    """
    method = trial.method
    if not method.trains:
        yield from evaluate_untrained(trial)
        return
    model = method.attach(trial.base.model, seed=trial.spec.knobs["seed"], in_place=trial.in_place)
    draw_apart(trial.spec.knobs["seed"], rank=trial.process_group.rank)
    wanted = trial.spec.knobs["gradient_checkpointing"]
    try:
        with memory_errors(), less_activation_memory(model, wanted=wanted):
            yield from _Training(trial, model).events()
    finally:
        if not trial.in_place:
            method.detach(model).eval()


class _Training:
    """One attempt at a trial: the model in training and how far it has come."""

    def __init__(self, trial: TrialContext, model: Any) -> None:
        self._trial = trial
        self._model = model
        self._knobs = trial.spec.knobs
        self._budget = trial.spec.budget
        self._data = trial.data.split("train")
        self._process_group = trial.process_group
        self._step_examples = step_examples(self._knobs)
        self._fitting = BatchShrinker.for_training(
            self._knobs["batch_size"], trial.folder.estimate(), limit=self._step_examples
        )
        self._engine = self._new_engine()
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
                    self._train_step()
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
            self._fitting.batch_size = (
                self._progress.executed_batch_size or self._fitting.batch_size
            )
        self._progress.begin_attempt(self._trial, can_count=self._rates is not None)
        reported_steps = sorted(self._trial.folder.reported_steps(after=self._progress.step))
        self._cadence.reported_steps = frozenset(self._process_group.broadcast(reported_steps))
        self._progress.trainable_parameters = self._engine.trainable_parameters
        device = self._trial.base.device
        seen = self._progress.train_peak_memory_bytes
        self._train_peak = PeakMemory(self._model, device, at_least=seen, with_everything=True)
        seen = self._progress.eval_peak_memory_bytes
        self._eval_peak = PeakMemory(self._model, device, at_least=seen)
        if last is None and device.type == "cpu" and isinstance(self._engine, Engine):
            with self._progress.timed("other_seconds"):
                self._measure()

    def _measure(self) -> None:
        """The longest micro-batch first: what does not fit is known before anything is trained."""

        def attempt(rows: int) -> None:
            indices = longest_micro_batch(
                self._data,
                self._order(0, self._budget.train_examples),
                step_examples=self._step_examples,
                rows=rows,
            )
            longest = collate(self._data, indices, pad_token=self._trial.base.pad_token)
            accumulated = rows < math.ceil(self._step_examples / self._process_group.size)
            base, steps = self._trial.base, self._total_steps
            spent = Engine(
                self._model, base, self._knobs, total_steps=steps, process_group=self._process_group
            )
            measure_training(spent, longest, accumulated=accumulated, peak=self._train_peak)

        self._fitting.fit(attempt)

    def _train_step(self) -> None:
        """One optimizer step over the next accumulated batch."""
        progress = self._progress
        stop = min(progress.units + self._step_examples, self._budget.train_examples)
        chosen = self._order(progress.units, stop)
        tokens = sum(len(self._data.completions[index]) for index in chosen)
        loss = self._process_group.sum(self._accumulate(chosen, tokens))
        self._check_finite(loss)
        with self._train_peak.measure(representative=False):
            self._engine.step(progress.step)
        seen = sum(self._data.length(index) for index in chosen)
        progress.step_done(units=stop, tokens=seen, loss=loss, loss_tokens=tokens)
        size = self._process_group.size  # of every worker: what they all do is the trial's
        shares = [
            micro_batches(chosen[rank::size], self._fitting.batch_size) for rank in range(size)
        ]
        batches = [batch for share_of_one in shares for batch in share_of_one]
        progress.count(
            self._rates, training=[batch_forward_backward(self._data, batch) for batch in batches]
        )
        progress.executed_batch_size = self._fitting.batch_size
        progress.executed_gradient_accumulation = math.ceil(
            self._step_examples / (self._fitting.batch_size * self._process_group.size)
        )

    def _accumulate(self, chosen: list[int], tokens: int) -> float:
        """Makes a step's gradients, in as many micro-batches as it takes; its summed loss."""
        engine = self._engine
        states = rng_states(engine.device)

        def attempt(rows: int) -> float:
            mine = share(chosen, self._process_group, rows=rows)
            with self._train_peak.measure(representative=False):
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
        """A worker for which no example is left computes on another's, which counts nothing."""
        batch = collate(self._data, indices or instead, pad_token=self._trial.base.pad_token)
        return batch if indices else batch.silent()

    def _check_finite(self, loss: float) -> None:
        if math.isfinite(loss):
            return
        last = "none" if self._saved_step is None else f"step {self._saved_step}"
        raise TrainingFailedError(
            f"Trial {self._trial.spec.trial_id[:6]} failed at step {self._progress.step + 1}: "
            f"loss is {loss}. Last checkpoint: {last}."
        )

    def _pending_rung(self) -> Iterator[Event]:
        """A rung that was interrupted: its training was saved, its evaluation begins anew."""
        if self._due_rungs():
            yield self._evaluate_rung(max(self._due_rungs()))

    def _due_rungs(self) -> list[float]:
        progress = self._progress
        return self._cadence.due_rungs(units=progress.units, judged=progress.fraction)

    def _due_event(self) -> Event | None:
        """What is to be told after a step, if anything; what is saved then tells of it too."""
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
        with progress.timed("eval_seconds"):  # first: it may be interrupted, and nothing is told
            evaluation = self._evaluate(whole=fraction == max(self._budget.rungs))
        metrics = self._training_metrics()
        progress.predictions_sha256 = trial.folder.write_predictions(evaluation.predictions)
        progress.fraction = fraction
        progress.eval_peak_memory_bytes = int(self._process_group.max(self._eval_peak.bytes))
        progress.see_device(self._train_peak, self._eval_peak)
        metrics |= evaluation.metrics | progress.memory_metrics() | progress.cost_metrics()
        event = self._report("rung", metrics, fraction=fraction)
        self._save()
        return event

    def _evaluate(self, *, whole: bool) -> Evaluation:
        trial = self._trial
        encoded = trial.data.split("selection")
        if not whole:
            budget = self._budget
            asked = fixed_subset(len(encoded), budget.eval_examples, seed=budget.seed)
            encoded = encoded.subset(asked)
        execution, foretold = trial.spec.execution, trial.folder.estimate()
        rows = predicted_batch_size(foretold, limit=execution.eval_batch_size, key="eval_batch")
        evaluation = evaluate(
            self._model,
            trial.base,
            task=trial.data.task,
            encoded=encoded,
            execution=dataclasses.replace(execution, eval_batch_size=rows),
            peak=self._eval_peak,
            after_batch=trial.heartbeat,
            may_shrink=self._process_group.size == 1,
        )
        self._progress.executed_eval_batch = evaluation.batch_size
        self._progress.count(self._rates, evaluation=evaluation.work * self._process_group.size)
        return evaluation

    def _training_metrics(self) -> dict[str, float]:
        progress = self._progress
        peak = max(self._train_peak.bytes, self._engine.peak_bytes)
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
        progress.hold()
        with progress.timed("other_seconds"):
            self._engine.save(
                self._trial.folder, step=progress.step, progress=dataclasses.asdict(progress)
            )
        self._saved_step = progress.step
        self._cadence.checkpoint_saved()

    def _finish(self) -> Event:
        trial, progress = self._trial, self._progress
        self._keep_predictions()
        started = time.perf_counter()
        with progress.timed("other_seconds"), storage_errors(trial.result_folder, SafetensorError):
            self._engine.export(trial.method, trial.folder, trial.base.tokenizer)
        progress.save_seconds = time.perf_counter() - started
        written = (file for file in trial.result_folder.rglob("*") if file.is_file())
        progress.checkpoint_bytes = sum(file.stat().st_size for file in written)
        return finish(trial, progress)

    def _keep_predictions(self) -> None:
        """They were damaged if the trial went on from a checkpoint behind its last rung: again."""
        folder, progress = self._trial.folder, self._progress
        is_there = digest(folder.predictions_file()) == progress.predictions_sha256
        if self._process_group.broadcast(is_there):
            return
        with progress.timed("eval_seconds"):
            folder.write_predictions(self._evaluate(whole=True).predictions)

    def _new_engine(self) -> Engine | ShardedEngine:
        base, steps = self._trial.base, self._total_steps
        return make_engine(
            self._model, base, self._knobs, total_steps=steps, process_group=self._process_group
        )

    @property
    def _total_steps(self) -> int:
        return math.ceil(self._budget.train_examples / self._step_examples)

    def _order(self, start: int, stop: int) -> list[int]:
        return training_order(len(self._data), seed=self._knobs["seed"], start=start, stop=stop)
