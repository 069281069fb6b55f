"""One worker of a worker group: trains a trial with the others, as the coordinator decides.

Rank 0 sends each event to the coordinator and broadcasts its decision to all ranks. Nothing here
uses Ray: torch.distributed has joined the ranks before.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

from trainables.errors import Discarded, Interrupted
from trainables.spec.events import Event
from trainables.storage.run_folder import trial_at
from trainables.training.progress import resumed_history
from trainables.workers.heartbeat import Watchdog
from trainables.workers.outcomes import (
    LOADING_FACTOR,
    Failure,
    error_chain,
    failure_of,
    is_of_another_worker,
)

Decision = Literal["continue", "close", "discard"]
DECISIONS: tuple[Decision, ...] = ("continue", "close", "discard")
_NO_TIMEOUT = timedelta(days=30)  # the driver may be busy


class Coordinator(Protocol):
    """Receives the events of a trial; methods that return a Decision wait for the driver's."""

    def on_start(self, history: list[Event]) -> Decision:
        """All ranks are ready; `history` are the events of the checkpoint that they resume from."""

    def on_event(self, event: Event) -> Decision:
        """All ranks have reached this event, which is not the last one."""

    def on_finish(self, event: Event) -> None:
        """The trial has finished."""

    def on_score(self, score: dict[str, Any]) -> None:
        """The trial was scored on the report split."""

    def on_interrupt(self) -> None:
        """The trial has saved a checkpoint and ended because it was interrupted."""

    def on_failure(self, failure: Failure) -> None:
        """A rank has failed; called by each rank that fails by an error of its own."""


def train_as_member(
    folder: str | Path,
    coordinator: Coordinator,
    *,
    provenance: dict[str, str],
    silent_seconds: float | None,
    device_shared: bool,
    interrupted: threading.Event,
) -> None:
    """Trains the trial of this folder until it finishes or the coordinator ends it.

    `device_shared`: other trials may compute on one of the workers' devices meanwhile.
    `interrupted`: when it is set on rank 0, the trial saves a checkpoint and ends. Raises what
    `train` raises, after `on_failure`; an error because another rank is gone is not reported.
    """
    member = _Member(folder, coordinator, interrupted, silent_seconds)
    try:
        member.run(provenance, device_shared=device_shared)
    except Interrupted:
        if member.leads:
            coordinator.on_interrupt()
    except Exception as error:
        if not _is_of_another_rank(error):
            coordinator.on_failure(failure_of(error))
        raise


def score_as_member(
    folder: str | Path, coordinator: Coordinator, *, silent_seconds: float | None
) -> None:
    """Scores the finished trial of this folder on the report split with the other ranks.

    Errors are as in `train_as_member`.
    """
    member = _Member(folder, coordinator, threading.Event(), silent_seconds)
    try:
        member.score()
    except Exception as error:
        if not _is_of_another_rank(error):
            coordinator.on_failure(failure_of(error))
        raise


class _Member:
    def __init__(
        self,
        folder: str | Path,
        coordinator: Coordinator,
        interrupted: threading.Event,
        silent_seconds: float | None,
    ) -> None:
        import torch.distributed as dist

        self._folder, self._coordinator = trial_at(str(folder)), coordinator
        self._rank = dist.get_rank()
        self._group = dist.new_group(backend="gloo", timeout=_NO_TIMEOUT)
        self._watchdog = Watchdog(
            self._folder, interrupted=interrupted, silent_seconds=silent_seconds
        )

    @property
    def leads(self) -> bool:
        return self._rank == 0

    def run(self, provenance: dict[str, str], *, device_shared: bool) -> None:
        from trainables.resources.system_metrics import SystemSampler
        from trainables.workers.distributed_trial import train_distributed

        if self.leads:
            self._folder.pull_all()
        history = resumed_history(self._folder) if self.leads else []
        events = train_distributed(
            self._folder.place,
            provenance=provenance,
            heartbeat=self._watchdog.beat if self.leads else _no_beat,
            sample=SystemSampler() if self.leads else dict,
            device_shared=device_shared,
        )
        event = self._next(events, factor=LOADING_FACTOR)  # loads everything
        decision = self._broadcast(self._coordinator.on_start(history) if self.leads else None)
        while decision == "continue":
            if event.kind == "finished":
                if self.leads:
                    self._coordinator.on_finish(event)
                return
            decision = self._broadcast(self._coordinator.on_event(event) if self.leads else None)
            if decision == "continue":
                event = self._next(events)
        self._leave(events, discard=decision == "discard")

    def score(self) -> None:
        from trainables.workers.distributed_trial import score_distributed

        if not self.leads:
            score_distributed(self._folder.place)
            return
        self._folder.pull_trained()
        with self._watchdog.guard(factor=LOADING_FACTOR):
            score = score_distributed(self._folder.place, heartbeat=self._watchdog.beat)
        self._coordinator.on_score(score)

    def _next(self, events: Generator[Event, Any, None], *, factor: float = 1.0) -> Event:
        if not self.leads:
            return next(events)
        with self._watchdog.guard(factor=factor):
            return next(events)

    def _broadcast(self, decision: Decision | None) -> Decision:
        """Returns rank 0's decision on all ranks."""
        import torch
        import torch.distributed as dist

        index = torch.tensor([DECISIONS.index(decision) if decision else 0])
        dist.broadcast(index, src=0, group=self._group)
        return DECISIONS[int(index)]

    def _leave(self, events: Generator[Event, Any, None], *, discard: bool) -> None:
        if not discard:
            events.close()
            return
        with contextlib.suppress(Discarded):
            events.throw(Discarded())
        if self.leads:
            self._folder.discard_checkpoints()


def _no_beat() -> None:
    """The heartbeat of ranks other than 0, which write no progress."""


def _is_of_another_rank(error: Exception) -> bool:
    """Whether a collective operation failed because another rank is gone or hangs."""
    texts = (f"{type(each).__name__}: {each}" for each in error_chain(error))
    return any(map(is_of_another_worker, texts))
