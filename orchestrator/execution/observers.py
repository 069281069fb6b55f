"""Observers of a running sweep: the display on the terminal and the tracker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from orchestrator.execution.display import SweepDisplay
from orchestrator.runs.ledger import TrialRecord
from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.sync import finish_trial, start_trial
from trainables.spec.events import Event

LabelOf = Callable[[TrialRecord], str]


class DisplayWatcher:
    """Shows every trial on the terminal."""

    def __init__(self, display: SweepDisplay, label_of: LabelOf) -> None:
        self._display, self._label_of = display, label_of

    def trial_started(self, record: TrialRecord) -> None:
        self._display.trial_started(record.trial_id, self._label_of(record))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        for event in events[-1:]:
            self._display.trial_event(record.trial_id, self._label_of(record), event)

    def trial_ended(self, record: TrialRecord) -> None:
        self._display.trial_ended(
            record.trial_id,
            self._label_of(record),
            record.state,
            record.reason,
            record.metrics,
            is_trial=record.is_trial,
        )


class TrackerWatcher:
    """Mirrors every trial in the tracker; no call here reads a file or waits for the tracker.

    A delayed tracker begins with the first event: MLflow's imports and its new store take 2 s of
    CPU, which the first trials need to start.
    """

    def __init__(self, tracker: BackgroundTracker, label_of: LabelOf) -> None:
        self._tracker, self._label_of = tracker, label_of

    def trial_started(self, record: TrialRecord) -> None:
        label = self._label_of(record)
        self._tracker.do(partial(start_trial, folder=record.folder, label=label))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        self._tracker.log(record.trial_id, events)
        if events:
            self._tracker.begin()

    def trial_ended(self, record: TrialRecord) -> None:
        label = self._label_of(record)
        self._tracker.do(partial(finish_trial, folder=record.folder, label=label))
        self._tracker.begin()
