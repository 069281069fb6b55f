"""Tracker, where a sweep is mirrored to while it runs, and BackgroundTracker, which never waits.

The trial's directory is the truth. A tracker only mirrors it, so whatever a tracker misses is
filled in at the next start (`orchestrator.mirror`), and no sweep fails because of one.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from trainables.spec import Event


class TrackingError(RuntimeError):
    """The tracker can't be used now; its message holds no password."""


@dataclass(frozen=True)
class SweepIdentity:
    """What the parent run of a sweep shows; `name` is also the experiment's name.

    `sweep_id` is equal for equal sweeps only: it joins a resumed sweep to what is there already.
    """

    sweep_id: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


class Tracker(Protocol):
    """Follows one sweep. Every call may be repeated: nothing is ever there twice.

    All methods raise TrackingError and nothing else for what lies outside the program.
    """

    def open(self, sweep: SweepIdentity) -> None:
        """Creates the sweep's parent run or reopens it; the first call."""

    def start(
        self,
        trial_id: str,
        *,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        started: float,
    ) -> None:
        """Creates the trial's run or reopens it as running; before `log` and `finish`.

        `started` is in seconds since the epoch, and counts for a run that is not there yet.
        """

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        """Adds the events' metrics at step = event.units, each metric and step once."""

    def finish(
        self,
        trial_id: str,
        *,
        state: str,
        reason: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Sequence[Path] = (),
    ) -> None:
        """Ends the trial's run with its final metrics; may follow an earlier `finish`."""

    def close(
        self, *, state: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()
    ) -> None:
        """Ends the parent run; the last call."""


class NoTracker:
    """Tracks nothing."""

    def open(self, sweep: SweepIdentity) -> None: ...

    def start(
        self,
        trial_id: str,
        *,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        started: float,
    ) -> None: ...

    def log(self, trial_id: str, events: Sequence[Event]) -> None: ...

    def finish(
        self,
        trial_id: str,
        *,
        state: str,
        reason: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Sequence[Path] = (),
    ) -> None: ...

    def close(
        self, *, state: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()
    ) -> None: ...


class BackgroundTracker:
    """Makes the calls of another tracker in one thread, in order; no call here waits or raises.

    `log` calls that are still waiting are merged. At the first TrackingError `warn` is called
    once, in that thread, and everything after it is dropped: `incomplete` is then true. `close`
    waits `close_seconds` at most for what is still to be done.
    """

    def __init__(
        self, tracker: Tracker, *, warn: Callable[[str], None], close_seconds: float = 30.0
    ) -> None:
        self._tracker = tracker
        self._warn = warn
        self._close_seconds = close_seconds
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()  # re-entrant
        self._incomplete = False
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    @property
    def incomplete(self) -> bool:
        """Whether something is missing from the tracker that only the next start completes."""
        return self._incomplete

    def open(self, sweep: SweepIdentity) -> None:
        self._add(partial(self._tracker.open, sweep))

    def start(
        self,
        trial_id: str,
        *,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        started: float,
    ) -> None:
        call = partial(self._tracker.start, trial_id, name=name, started=started)
        self._add(partial(call, params=dict(params), tags=dict(tags)))

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        with self._changed:
            last = self._waiting[-1] if self._waiting else None
            logs = last if isinstance(last, _Logs) else _Logs(self._tracker)
            logs.events.setdefault(trial_id, []).extend(events)
            if logs is not last:
                self._add(logs)

    def finish(
        self,
        trial_id: str,
        *,
        state: str,
        reason: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Sequence[Path] = (),
    ) -> None:
        call = partial(self._tracker.finish, trial_id, state=state, reason=reason)
        self._add(partial(call, metrics=dict(metrics), tags=dict(tags), artifacts=tuple(artifacts)))

    def close(
        self, *, state: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()
    ) -> None:
        call = partial(self._tracker.close, state=state)
        self._add(partial(call, metrics=dict(metrics), artifacts=tuple(artifacts)), last=True)
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            self._give_up(f"tracking is not done after {self._close_seconds:g} s")

    def _add(self, call: _Call, *, last: bool = False) -> None:
        with self._changed:
            if not self._incomplete:
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
            # a fault of the program ends this thread; the driver has to hear of it
            if not done:
                self._give_up("tracking ended by a fault of the program")

    def _next(self) -> _Call | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            return self._waiting.popleft() if self._waiting else None

    def _make(self, call: _Call) -> None:
        try:
            call()
        except TrackingError as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        with self._changed:
            first, self._incomplete = not self._incomplete, True
            self._waiting.clear()
        if first:
            self._warn(f"{why}. The sweep goes on; its next start completes what is missing there.")


_Call = Callable[[], None]


class _Logs:
    """`log` calls, merged per trial."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.events: dict[str, list[Event]] = {}

    def __call__(self) -> None:
        for trial_id, events in self.events.items():
            self._tracker.log(trial_id, events)


def redact(text: str) -> str:
    """`text` without the user names, passwords and tokens of the addresses in it."""
    text = re.sub(r"://\S*@", "://***@", text)
    return re.sub(r"(?i)(password|passwd|pwd|token|secret)=[^&\s]+", r"\1=***", text)
