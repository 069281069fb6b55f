"""Observers of a running sweep: the display on the terminal and the tracker."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from orchestrator.execution.display import SweepDisplay
from orchestrator.runs.ledger import TrialRecord
from orchestrator.runs.trial_label import trial_label
from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.sync import finish_trial, start_trial
from trainables.spec.events import Event


class DisplayWatcher:
    """Shows every trial on the terminal."""

    def __init__(self, display: SweepDisplay) -> None:
        self._display = display

    def trial_started(self, record: TrialRecord) -> None:
        self._display.trial_started(record.trial_id, trial_label(record.spec.knobs))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        for event in events[-1:]:
            self._display.trial_event(record.trial_id, trial_label(record.spec.knobs), event)

    def trial_ended(self, record: TrialRecord) -> None:
        self._display.trial_ended(
            record.trial_id,
            trial_label(record.spec.knobs),
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

    def __init__(self, tracker: BackgroundTracker) -> None:
        self._tracker = tracker

    def trial_started(self, record: TrialRecord) -> None:
        self._tracker.do(partial(start_trial, folder=record.folder))

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None:
        self._tracker.log(record.trial_id, events)
        if events:
            self._tracker.begin()

    def trial_ended(self, record: TrialRecord) -> None:
        self._tracker.do(partial(finish_trial, folder=record.folder))
        self._tracker.begin()
