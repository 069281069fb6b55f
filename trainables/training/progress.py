"""Progress: the counters and the history of a trial, as its checkpoints keep them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trainables.resources.flops import ForwardBackward, Generation, WorkRates, total_flops
from trainables.resources.memory_peak import PeakMemory, greatest, process_peak_memory_bytes
from trainables.spec.events import Event
from trainables.storage.trial_folder import TrialFolder
from trainables.training import checkpoint
from trainables.training.trial import TrialContext

RECENT_STEPS = 16  # optimizer steps


@dataclass
class Progress:
    """The progress of a trial, which a checkpoint keeps as JSON beside the tensors.

    `loss_sum` and `loss_tokens` cover the time since the last event, `recent_losses` (the sum and
    the number of tokens of each step) the last RECENT_STEPS steps. `train_flops` and `eval_flops`
    are None if a part of the work ran without an estimate by which to count it. `device_seconds` is
    the time that its attempts held the device, including loading, saving and pauses, times the
    number of devices. Nothing includes what an attempt did after its last checkpoint.
    """

    step: int = 0
    units: int = 0
    tokens_seen: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    recent_losses: list[tuple[float, int]] = field(default_factory=list)
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    other_seconds: float = 0.0
    fraction: float = 0.0  # the last rung that was evaluated
    train_peak_memory_bytes: int = 0
    eval_peak_memory_bytes: int = 0
    process_peak_memory_bytes: int = 0
    device_peaks: dict[str, int] = field(default_factory=dict)  # see `PeakMemory.device_peaks`
    train_flops: float | None = None
    eval_flops: float | None = None
    device_seconds: float = 0.0
    device_shared: bool = False  # in any of its attempts
    attempts: int = 0
    executed_batch_size: int = 0  # micro-batch size of the last optimizer step
    executed_gradient_accumulation: int = 0
    executed_eval_batch: int = 0  # batch size of the last evaluation
    first_step_time: float = 0.0  # Unix time at the end of the first optimizer step
    predictions_sha256: str = ""  # of the last rung
    trainable_parameters: int = 0
    checkpoint_bytes: int = 0  # of the final adapter or model
    save_seconds: float = 0.0  # for writing it
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._device_time_added = time.perf_counter()
        self._devices = 1

    @classmethod
    def restored(cls, written: Mapping[str, Any]) -> Progress:
        """The progress in a checkpoint, which may be older than `device_seconds`."""
        progress = cls(**written)
        if "device_seconds" not in written:
            progress.device_seconds = progress.seconds
        return progress

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.eval_seconds + self.other_seconds

    def begin_attempt(self, trial: TrialContext, *, can_count: bool) -> None:
        """Starts another attempt; `can_count` says that there are rates by which to count FLOPs.

        An attempt that resumes uncounted work counts none.
        """
        is_new = self.attempts == 0
        self.attempts += 1
        self._devices = trial.devices
        self.device_seconds += trial.load_seconds * trial.devices
        self.device_shared |= trial.device_shared
        if not can_count:
            self.train_flops = self.eval_flops = None
        elif is_new:
            self.train_flops = self.eval_flops = 0.0

    def add_device_time(self) -> None:
        """Adds the time since the attempt began, or since the last call, to `device_seconds`."""
        now = time.perf_counter()
        self.device_seconds += (now - self._device_time_added) * self._devices
        self._device_time_added = now

    def record_device_peaks(self, *peaks: PeakMemory) -> None:
        """Raises the device's peaks to those of `peaks`."""
        for peak in peaks:
            self.device_peaks = greatest(self.device_peaks, peak.device_peaks)

    def count(
        self,
        rates: WorkRates | None,
        *,
        training: Iterable[ForwardBackward] = (),
        evaluation: Iterable[ForwardBackward | Generation] = (),
    ) -> None:
        """Adds the FLOPs of work."""
        if rates is None or self.train_flops is None or self.eval_flops is None:
            return
        self.train_flops += total_flops(training, rates.training)
        self.eval_flops += total_flops(evaluation, rates.forward)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the duration of the block to the field `name`, also if the block is interrupted."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    def event(
        self,
        kind: Any,
        metrics: Mapping[str, float],
        *,
        fraction: float,
        system: Mapping[str, float],
    ) -> Event:
        """Makes an event of now and appends it to the history."""
        event = Event(
            kind=kind,
            step=self.step,
            units=self.units,
            metrics=dict(metrics),
            fraction=fraction,
            seconds=self.seconds,
            system=dict(system),
        )
        self.history.append(event.to_json())
        return event

    def step_done(self, *, units: int, tokens: int, loss: float, loss_tokens: int) -> None:
        """Records an optimizer step that ended after `units` in all; `loss` is the sum over its
        tokens."""
        self.step += 1
        self.first_step_time = self.first_step_time or time.time()
        self.units = units
        self.tokens_seen += tokens
        self.loss_sum += loss
        self.loss_tokens += loss_tokens
        self.recent_losses = [*self.recent_losses, (loss, loss_tokens)][-RECENT_STEPS:]

    def take_training_metrics(self, *, learning_rate: float) -> dict[str, float]:
        """The metrics of training.

        `train_loss` is the mean since the last call, thus depends on the clock, by which events
        come; the other loss is of the last steps, so that equal trainings have equal ones.
        """
        metrics = {
            "train_loss": self.loss_sum / max(1, self.loss_tokens),
            **self._recent_loss(),
            "learning_rate_now": learning_rate,
            "examples_per_second": self.units / self.train_seconds,
            "tokens_seen": float(self.tokens_seen),
            "train_peak_memory_bytes": float(self.train_peak_memory_bytes),
            "executed_batch_size": float(self.executed_batch_size),
            "executed_gradient_accumulation": float(self.executed_gradient_accumulation),
        }
        self.loss_sum, self.loss_tokens = 0.0, 0
        return metrics

    def _recent_loss(self) -> dict[str, float]:
        """The mean over the tokens of the last RECENT_STEPS steps, or of all if they are fewer.

        Absent where an older checkpoint did not keep them.
        """
        if len(self.recent_losses) < min(self.step, RECENT_STEPS):
            return {}
        losses, tokens = zip(*self.recent_losses, strict=True)
        return {f"train_loss_last_{RECENT_STEPS}_steps": sum(losses) / max(1, sum(tokens))}

    def memory_metrics(self) -> dict[str, float]:
        """The memory peaks of evaluation, of the process as of now, and of the GPU."""
        now = process_peak_memory_bytes()
        self.process_peak_memory_bytes = max(self.process_peak_memory_bytes, now)
        return {
            "eval_peak_memory_bytes": float(self.eval_peak_memory_bytes),
            "process_peak_memory_bytes": float(self.process_peak_memory_bytes),
            **{name: float(value) for name, value in self.device_peaks.items()},
        }

    def cost_metrics(self) -> dict[str, float]:
        """The FLOPs so far, if they are counted, and the use of the device until now."""
        self.add_device_time()
        counted = {"train_flops": self.train_flops, "eval_flops": self.eval_flops}
        return {
            **{name: flops for name, flops in counted.items() if flops is not None},
            "device_seconds": self.device_seconds,
            "device_shared": float(self.device_shared),
        }


def resumed_history(folder: TrialFolder) -> list[Event]:
    """The events up to the folder's last checkpoint, which `train` will not yield again."""
    return [Event.from_json(event) for event in last_progress(folder).history]


def last_progress(folder: TrialFolder) -> Progress:
    """The progress of the folder's last checkpoint, or that of the start if there is none."""
    state = checkpoint.load_latest_state(folder.checkpoints_folder)
    return Progress() if state is None else Progress.restored(state["progress"])
