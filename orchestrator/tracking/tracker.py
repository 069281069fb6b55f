"""Tracker: the protocol of trackers, the values that they are given, their error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainables.spec.events import Event

Row = Mapping[str, Any]


class TrackingError(RuntimeError):
    """The tracker can't be used now; the message holds no password."""


@dataclass(frozen=True)
class SweepIdentity:
    """The parent run of a sweep; `name` is also the name of the experiment.

    A resumed sweep finds its runs by `sweep_id`, which no other sweep has. `started` is as in
    RunStart.
    """

    sweep_id: str
    name: str
    started: float
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStart:
    """The start of a trial's run; `started`, in seconds since the epoch, is used only if the run is
    created."""

    trial_id: str
    name: str
    started: float
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEnd:
    """The end of a trial's run; `history` has all its events, also those that were logged before.

    `tables` has rows by the name of the file in which a tracker keeps them.
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
    """The end of the parent run; `adapters` has folders by trial id, to be kept with the trials."""

    state: str  # 'finished' or 'interrupted'
    metrics: Mapping[str, float] = field(default_factory=dict)
    artifacts: Sequence[Path] = ()
    adapters: Mapping[str, Path] = field(default_factory=dict)


class Tracker(Protocol):
    """Records one sweep. Every call may be repeated; nothing is recorded twice.

    All methods raise TrackingError, and nothing else, for errors outside the program. After one,
    `open` and then `start` for each trial that has not ended make the tracker usable again.
    """

    def open(self, sweep: SweepIdentity) -> None:
        """Creates or reopens the sweep's parent run; the first call."""

    def start(self, start: RunStart) -> None:
        """Creates the trial's run, or reopens it as running; must precede `log`."""

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        """Adds the events' metrics at step = event.units, each metric and step once; system metrics
        have names `system/...`."""

    def finish(self, end: RunEnd) -> None:
        """Ends the trial's run, which is created if necessary: adds the missing part of its history
        and its final metrics. May follow an earlier `finish`; cheap if nothing is missing."""

    def close(self, end: SweepEnd) -> None:
        """Ends the parent run; the last call."""


_USER = re.compile(r"://(?:\S*|[^/?#]*)@")  # a password may hold slashes, or blanks
_SECRET = re.compile(
    r"(?i)(password|passwd|pwd|token|secret|api_?key|access_?key|sig(?:nature)?|credential)"
    r"=[^&\s]+"
)


_CREDENTIALS = re.compile(r"://(?:[^/?#@\s]*:(?!\d+/)\S*|[^/?#\s]*)@")  # before a host


def redact_address(text: str) -> str:
    """As `redact` if the text is or holds one address, of which paths are left as they are; any
    other text is returned unchanged."""
    if "://" not in text:
        return text
    place, mark, query = _CREDENTIALS.sub("://***@", text).partition("?")
    return place + mark + _SECRET.sub(r"\1=***", query)


def redact(text: str) -> str:
    """`text` without the user names, passwords, keys and tokens of the addresses in it."""
    return _SECRET.sub(r"\1=***", _USER.sub("://***@", text))
