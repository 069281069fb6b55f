"""Trial, all that one trial needs to run, and Progress, how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trainables import checkpoint
from trainables.cost import process_peak_memory_bytes
from trainables.data import TrialData
from trainables.methods import LoRA, Untrained, make_method
from trainables.models import Base
from trainables.run_folder import TrialFolder
from trainables.spec import Event, TrialSpec


@dataclass(frozen=True)
class Trial:
    """All that a trial needs to run: what it is, the base it borrows, its data and its folder.

    `heartbeat` is called after every optimizer step and every batch of an evaluation; it may
    raise Interrupted. `sample` is asked once per event what the machine is doing (`Event.system`).
    """

    spec: TrialSpec
    base: Base
    folder: TrialFolder
    data: TrialData
    provenance: Mapping[str, Any] = field(default_factory=dict)
    heartbeat: Callable[[], None] = lambda: None
    sample: Callable[[], Mapping[str, float]] = dict

    @property
    def method(self) -> LoRA | Untrained:
        return make_method(self.spec.knobs)


@dataclass
class Progress:
    """How far a trial has come: what a checkpoint says besides tensors. JSON both ways.

    `loss_sum` and `loss_tokens` are of the time since the last event.
    """

    step: int = 0
    units: int = 0
    tokens_seen: int = 0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    other_seconds: float = 0.0
    fraction: float = 0.0  # the last rung that was judged
    train_peak_memory_bytes: int = 0
    eval_peak_memory_bytes: int = 0
    process_peak_memory_bytes: int = 0
    attempts: int = 0
    executed_batch_size: int = 0  # examples at once, as of the last optimizer step
    executed_gradient_accumulation: int = 0
    first_step_time: float = 0.0  # Unix; when its first optimizer step was done
    predictions_sha256: str = ""  # of the last rung
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.train_seconds + self.eval_seconds + self.other_seconds

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds what runs inside to `name`, one of the seconds."""
        started = time.perf_counter()
        yield
        setattr(self, name, getattr(self, name) + time.perf_counter() - started)

    def event(
        self,
        kind: Any,
        metrics: Mapping[str, float],
        *,
        fraction: float,
        system: Mapping[str, float],
    ) -> Event:
        """An event of now, which is also put into the history."""
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

    def memory_metrics(self) -> dict[str, float]:
        """The peaks of evaluation and of the process; the process is asked now."""
        now = process_peak_memory_bytes()
        self.process_peak_memory_bytes = max(self.process_peak_memory_bytes, now)
        return {
            "eval_peak_memory_bytes": float(self.eval_peak_memory_bytes),
            "process_peak_memory_bytes": float(self.process_peak_memory_bytes),
        }


def resumed_history(folder: TrialFolder) -> list[Event]:
    """The events up to the folder's last checkpoint, which `train` will not yield again."""
    return [Event.from_json(event) for event in last_progress(folder).history]


def last_progress(folder: TrialFolder) -> Progress:
    """What the folder's last checkpoint says; the beginning if there is none."""
    state = checkpoint.load_latest_state(folder.checkpoints_folder)
    return Progress() if state is None else Progress(**state["progress"])
