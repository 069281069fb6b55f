"""BackgroundTracker: calls another tracker in a thread, so that the sweep never waits for it.

Trial folders are authoritative and a tracker only mirrors them. What it lacks at the end of a sweep
is completed at the next start (`orchestrator.tracking.sync`); no sweep fails because of a tracker.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from orchestrator.tracking.tracker import (
    RunEnd,
    RunStart,
    SweepEnd,
    SweepIdentity,
    Tracker,
    TrackingError,
)
from trainables.spec.events import Event

FIRST_PAUSE_SECONDS = 5.0  # each further pause is twice as long
LONGEST_PAUSE_SECONDS = 300.0
ATTEMPTS = 3  # of one call, each on a tracker that could be opened


class BackgroundTracker:
    """Makes the calls of another tracker in one thread, in order; no call waits or raises.

    After a TrackingError `warn` is called once, in that thread. The tracker is opened again after
    growing pauses, at the latest in `close`, and `warn` is called again once nothing is missing.
    Until then starts and ends are queued; points are dropped, as the end of a trial holds them all.
    Queued `log` calls are merged. `close` waits at most `close_seconds`. A `delayed` tracker makes
    no call before `begin` or `close`.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        warn: Callable[[str], None],
        close_seconds: float = 30.0,
        pause_seconds: float = FIRST_PAUSE_SECONDS,
        delayed: bool = False,
    ) -> None:
        self._tracker = _Reopenable(tracker)
        self._warn = warn
        self._close_seconds = close_seconds
        self._pause_seconds = pause_seconds
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()  # re-entrant
        self._broken = False  # it must be opened again before the next call
        self._incomplete = self._dropped = False
        self._closing = self._over = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._begun = False
        if not delayed:
            self.begin()

    @property
    def incomplete(self) -> bool:
        """Whether the tracker lacks something; after `close` the next start completes it."""
        return self._incomplete

    def begin(self) -> None:
        """Starts to make the queued calls; has no effect if they are made already."""
        if not self._begun:
            self._begun = True
            self._thread.start()

    def open(self, sweep: SweepIdentity) -> None:
        self._add(_Call(partial(self._tracker.open, sweep)))

    def start(self, start: RunStart) -> None:
        self._add(_Call(partial(self._tracker.start, start)))

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        with self._changed:
            last = self._waiting[-1] if self._waiting else None
            logs = last if isinstance(last, _Logs) else _Logs(self._tracker)
            logs.events.setdefault(trial_id, []).extend(events)
            if logs is not last and not self._broken:
                self._add(logs)

    def finish(self, end: RunEnd) -> None:
        self._add(_Call(partial(self._tracker.finish, end)))

    def do(self, work: Callable[[Tracker], object]) -> None:
        """Calls `work` with the tracker, in the thread and in order; for work that takes time, as
        reading files. It is called again after a TrackingError."""
        self._add(_Call(partial(work, self._tracker)))

    def close(self, end: SweepEnd) -> None:
        self._add(_Call(partial(self._tracker.close, end)), last=True)
        self.begin()
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self._give_up(f"tracking is not done after {self._close_seconds:g} s")

    def _add(self, call: _Call, *, last: bool = False) -> None:
        with self._changed:
            if not self._over:
                self._waiting.append(call)
            self._closing = self._closing or last
            self._changed.notify()

    def _work(self) -> None:
        done = False
        try:
            while (call := self._next()) is not None:
                self._make(call)
            done = True
        finally:
            # a programming error ends this thread: the driver must be warned
            if not done:
                self._give_up("tracking ended by a fault of the program")

    def _next(self) -> _Call | None:
        """Waits for the next call, or for the next attempt to reopen a broken tracker.

        Returns None when there is nothing left to do.
        """
        with self._changed:
            if self._broken and not self._over:
                self._changed.wait_for(lambda: self._closing, self._pause_seconds)
                self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
                return self._waiting.popleft() if self._waiting else _Logs(self._tracker)
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None

    def _make(self, call: _Call) -> None:
        was_closing = self._closing
        try:
            if self._broken:
                self._tracker.reopen()
                self._broken = False
            call.make()
        except TrackingError as error:
            if self._broken and was_closing:
                self._give_up(str(error))
            else:
                self._failed(call, str(error))
        else:
            self._succeeded()

    def _failed(self, call: _Call, why: str) -> None:
        """Queues the call to be made first again, unless it has failed ATTEMPTS times."""
        with self._changed:
            if self._over:
                return
            call.failures += not self._broken
            self._broken = True
            first, self._incomplete = not self._incomplete, True
            retried = [call] if call.failures < ATTEMPTS else []
            self._dropped = self._dropped or not retried
            waiting = [*retried, *self._waiting]
            self._waiting = deque(item for item in waiting if not isinstance(item, _Logs))
        if first:
            self._warn(f"{why}. {_IS_COMPLETED_LATER}")

    def _succeeded(self) -> None:
        with self._changed:
            lacks_something = self._waiting or self._dropped or self._over
            is_complete_again = self._incomplete and not lacks_something
            self._incomplete = self._incomplete and not is_complete_again
        if is_complete_again:
            self._warn("Tracking works again, and nothing is missing there.")

    def _give_up(self, why: str) -> None:
        with self._changed:
            first, self._incomplete = not self._incomplete, True
            self._over = True
            self._waiting.clear()
        if first:
            self._warn(f"{why}. {_IS_COMPLETED_LATER}")


_IS_COMPLETED_LATER = (
    "The sweep goes on; what is missing there is completed later or by the next start."
)


class _Reopenable:
    """A tracker that can be opened again: it keeps the sweep and the trials that still run."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._sweep: SweepIdentity | None = None
        self._starts: dict[str, RunStart] = {}
        self._running: set[str] = set()

    def open(self, sweep: SweepIdentity) -> None:
        self._sweep = sweep
        self._tracker.open(sweep)

    def reopen(self) -> None:
        if self._sweep is not None:
            self._tracker.open(self._sweep)
        for trial_id in sorted(self._running):
            self._tracker.start(self._starts[trial_id])

    def start(self, start: RunStart) -> None:
        self._tracker.start(start)
        self._starts[start.trial_id] = start
        self._running.add(start.trial_id)

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        if trial_id in self._running:
            self._tracker.log(trial_id, events)

    def finish(self, end: RunEnd) -> None:
        self._tracker.finish(end)
        self._running.discard(end.trial_id)

    def close(self, end: SweepEnd) -> None:
        self._tracker.close(end)


@dataclass
class _Call:
    make: Callable[[], object]
    failures: int = 0


class _Logs(_Call):
    """Merged `log` calls, by trial; without any it does nothing."""

    def __init__(self, tracker: _Reopenable) -> None:
        super().__init__(self._log)
        self._tracker = tracker
        self.events: dict[str, list[Event]] = {}

    def _log(self) -> None:
        for trial_id, events in self.events.items():
            self._tracker.log(trial_id, events)
