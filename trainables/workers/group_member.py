"""One worker of a gang: it trains with the others, and they do together what the front decides.

Rank 0 tells the front of each event and all ranks hear what comes next. It knows nothing of Ray:
torch.distributed has joined the ranks before.
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
from trainables.workers.outcomes import LOADING_TAKES, Failure, failure_of

Decision = Literal["go on", "close", "discard"]
DECISIONS: tuple[Decision, ...] = ("go on", "close", "discard")
_AS_LONG_AS_IT_TAKES = timedelta(days=30)  # the driver may be busy


class Coordinator(Protocol):
    """Whom rank 0 tells what happens; two of the methods wait for what to do next."""

    def on_start(self, history: list[Event]) -> Decision:
        """The trial goes on after these events."""

    def on_event(self, event: Event) -> Decision: ...

    def on_finish(self, event: Event) -> None: ...

    def on_interrupt(self) -> None: ...

    def on_failure(self, failure: Failure) -> None:
        """Told by whichever rank failed first."""


def train_as_member(
    folder: str | Path,
    coordinator: Coordinator,
    *,
    provenance: dict[str, str],
    silent_seconds: float | None,
    device_shared: bool,
    interrupted: threading.Event,
) -> None:
    """Trains the trial of this folder until it ends or the front ends it.

    `device_shared`: other trials may compute on one of the workers' devices meanwhile.
    `interrupted`, on rank 0, means that it is to save a checkpoint and leave. Raises what `train`
    does, after telling the front; that another rank is gone is not told, it shows by itself.
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
        self._group = dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
        self._watch = Watchdog(self._folder, interrupted=interrupted, silent_seconds=silent_seconds)

    @property
    def leads(self) -> bool:
        return self._rank == 0

    def run(self, provenance: dict[str, str], *, device_shared: bool) -> None:
        from trainables.resources.system_metrics import SystemSampler
        from trainables.workers.distributed_trial import train_on_ranks

        if self.leads:
            self._folder.pull_all()
        history = resumed_history(self._folder) if self.leads else []
        events = train_on_ranks(
            self._folder.place,
            provenance=provenance,
            heartbeat=self._watch.beat if self.leads else _nothing,
            sample=SystemSampler() if self.leads else dict,
            device_shared=device_shared,
        )
        event = self._next(events, times=LOADING_TAKES)  # all is loaded then, and it does run
        decision = self._heard(self._coordinator.on_start(history) if self.leads else None)
        while decision == "go on":
            if event.kind == "finished":
                if self.leads:
                    self._coordinator.on_finish(event)
                return
            decision = self._heard(self._coordinator.on_event(event) if self.leads else None)
            if decision == "go on":
                event = self._next(events)
        self._leave(events, discard=decision == "discard")

    def _next(self, events: Generator[Event, Any, None], *, times: float = 1.0) -> Event:
        if not self.leads:
            return next(events)
        with self._watch.over(times=times):
            return next(events)

    def _heard(self, decision: Decision | None) -> Decision:
        """Rank 0's, on all ranks."""
        import torch
        import torch.distributed as dist

        said = torch.tensor([DECISIONS.index(decision) if decision else 0])
        dist.broadcast(said, src=0, group=self._group)
        return DECISIONS[int(said)]

    def _leave(self, events: Generator[Event, Any, None], *, discard: bool) -> None:
        if not discard:
            events.close()
            return
        with contextlib.suppress(Discarded):
            events.throw(Discarded())
        if self.leads:
            self._folder.discard_checkpoints()


def _nothing() -> None:
    """The heartbeat of the others: rank 0 gives the signs of life."""


def _is_of_another_rank(error: Exception) -> bool:
    """Whether a collective broke off, because somebody else is gone or hangs."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)
