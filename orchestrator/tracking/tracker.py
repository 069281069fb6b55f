"""Tracker: what a tracker is told, and its errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainables.spec.events import Event

Row = Mapping[str, Any]


class TrackingError(RuntimeError):
    """The tracker can't be used now; its message holds no password."""


@dataclass(frozen=True)
class SweepIdentity:
    """What the parent run of a sweep shows; `name` is also the experiment's name.

    `sweep_id` is equal for equal sweeps only: it joins a resumed sweep to what is there already.
    `started` is as in RunStart.
    """

    sweep_id: str
    name: str
    started: float
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStart:
    """What a trial's run begins with; `started`, in seconds since the epoch, counts for a run that
    is not there yet."""

    trial_id: str
    name: str
    started: float
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEnd:
    """What a trial's run is in the end: `history` holds all its events, those logged before too.

    `tables` are rows by the name of the file that a tracker keeps them in.
    """

    start: RunStart
    state: str  # one of trainables.spec.states.STATES
    reason: str = ""
    history: Sequence[Event] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    @property
    def trial_id(self) -> str:
        return self.start.trial_id


@dataclass(frozen=True)
class SweepEnd:
    """What the parent run ends with; `adapters`, folders by trial id, are kept with the trials."""

    state: str  # 'finished' or 'interrupted'
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    adapters: Mapping[str, Path] = field(default_factory=dict)


class Tracker(Protocol):
    """Follows one sweep. Every call may be repeated: nothing is ever there twice.

    All methods raise TrackingError and nothing else for what lies outside the program. After one,
    `open` and then `start` for each trial that has not ended make the tracker usable again.
    """

    def open(self, sweep: SweepIdentity) -> None:
        """Creates the sweep's parent run or reopens it; the first call."""

    def start(self, start: RunStart) -> None:
        """Creates the trial's run or reopens it as running; before `log`."""

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        """Adds the events' metrics at step = event.units, each metric and step once; what the
        machine did, by the names `system/...`."""

    def finish(self, end: RunEnd) -> None:
        """Ends the trial's run, which is made if it is not there, with what of its history is
        missing there and its final metrics; may follow an earlier `finish`. Costs next to
        nothing where all of it is there."""

    def close(self, end: SweepEnd) -> None:
        """Ends the parent run; the last call."""


_USER = re.compile(r"://(?:\S*|[^/?#]*)@")  # a password may hold slashes, or blanks
_SECRET = re.compile(
    r"(?i)(password|passwd|pwd|token|secret|api_?key|access_?key|sig(?:nature)?|credential)"
    r"=[^&\s]+"
)


def redact(text: str) -> str:
    """`text` without the user names, passwords, keys and tokens of the addresses in it."""
    return _SECRET.sub(r"\1=***", _USER.sub("://***@", text))
