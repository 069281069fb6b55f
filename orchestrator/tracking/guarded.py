"""LeaseGuardedTracker: a tracker that only the driver that holds the lease may write to."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.runs.lease import LeaseLostError
from orchestrator.tracking.tracker import (
    RunEnd,
    RunStart,
    SweepEnd,
    SweepIdentity,
    Tracker,
    TrackingError,
)
from trainables.spec.events import Event
from trainables.storage.atomic_files import Guard


class LeaseGuardedTracker:
    """Calls `guard` before each call, and raises TrackingError if it raises LeaseLostError."""

    def __init__(self, tracker: Tracker, *, guard: Guard) -> None:
        self._tracker = tracker
        self._guard = guard

    def open(self, sweep: SweepIdentity) -> None:
        self._check()
        self._tracker.open(sweep)

    def start(self, start: RunStart) -> None:
        self._check()
        self._tracker.start(start)

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        self._check()
        self._tracker.log(trial_id, events)

    def finish(self, end: RunEnd) -> None:
        self._check()
        self._tracker.finish(end)

    def close(self, end: SweepEnd) -> None:
        self._check()
        self._tracker.close(end)

    def _check(self) -> None:
        try:
            self._guard()
        except LeaseLostError as error:
            raise TrackingError(str(error)) from error
