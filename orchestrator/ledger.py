"""Ledger: what is known of every trial of a sweep, read from the trial directories at each start.

The directories are the truth; the ledger is the driver's copy of it and writes back what only the
driver decides: that a trial was stopped early, failed, or can't be run at all.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.run_folder import RunFolder, TrialFolder
from trainables.spec import (
    FAILED,
    FINISHED,
    INFEASIBLE,
    INTERRUPTED,
    STOPPED,
    TRIAL,
    Event,
    TrialSpec,
)

RUNNING = "running"


@dataclass
class TrialRecord:
    """One trial: its spec, where it stands, and all that it has reported."""

    spec: TrialSpec
    folder: TrialFolder
    state: str
    reason: str = ""
    history: list[Event] = field(default_factory=list)
    suggestion: Mapping[str, Any] = field(default_factory=dict)  # Optuna's parameters, by name

    @property
    def trial_id(self) -> str:
        return self.folder.trial_id

    @property
    def is_trial(self) -> bool:
        return self.spec.role == TRIAL

    @property
    def rungs(self) -> list[Event]:
        """The events at which the trial was judged, in order."""
        return [event for event in self.history if event.kind == "rung"]

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of each metric."""
        latest: dict[str, float] = {}
        for event in self.history:
            latest.update(event.metrics)
        return latest


class Ledger:
    """All trials of one run folder by id, in the order in which they were first suggested."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.provenance: dict[str, str] = {}  # of this start, for what the driver writes
        self.warnings: list[str] = []
        self.records: dict[str, TrialRecord] = {}
        for folder in list(run.trials()):
            self._read(folder)

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.records.values())

    def get(self, trial_id: str) -> TrialRecord | None:
        return self.records.get(trial_id)

    def count(self, *states: str, role: str = TRIAL) -> int:
        return sum(record.spec.role == role and record.state in states for record in self)

    def with_state(self, *states: str) -> list[TrialRecord]:
        return [record for record in self if record.state in states]

    def add(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> TrialRecord:
        """Writes the spec of a new trial: from here on it is part of the sweep."""
        folder = self.run.trial(spec.trial_id)
        folder.write_spec(spec, suggestion)
        record = TrialRecord(spec, folder, INTERRUPTED, suggestion=dict(suggestion))
        self.records[spec.trial_id] = record
        return record

    def finished(self, record: TrialRecord) -> None:
        """The worker has written the summary; nothing is left to write."""
        record.state = FINISHED

    def stopped(self, record: TrialRecord) -> None:
        last = record.rungs[-1] if record.rungs else None
        at = f"at {last.fraction:.0%} of its budget" if last else "before its first rung"
        self._end(record, STOPPED, f"stopped early {at}")
        record.folder.discard_checkpoints()

    def failed(self, record: TrialRecord, reason: str) -> None:
        self._end(record, FAILED, reason)

    def infeasible(self, record: TrialRecord, reason: str) -> None:
        self._end(record, INFEASIBLE, reason)

    def run_again(self, record: TrialRecord) -> None:
        """A failed or infeasible trial gets another chance, from its last checkpoint."""
        record.folder.discard_result()
        record.state, record.reason, record.history = INTERRUPTED, "", []

    def _read(self, folder: TrialFolder) -> None:
        """A trial whose spec is damaged is set aside: it is suggested again if it is wanted."""
        try:
            self.records[folder.trial_id] = _read(folder)
        except (ValueError, KeyError, TypeError) as error:
            folder.set_spec_aside()
            self.warnings.append(f"{folder.spec_file}: damaged ({error}); set aside")

    def _end(self, record: TrialRecord, state: str, reason: str) -> None:
        record.state, record.reason = state, reason
        last = record.history[-1] if record.history else None
        record.folder.write_summary(
            {
                "trial_id": record.trial_id,
                "role": record.spec.role,
                "state": state,
                "reason": reason,
                "configuration": dict(record.spec.knobs),
                "metrics": record.metrics,
                "step": last.step if last else 0,
                "units": last.units if last else 0,
                "fraction": record.rungs[-1].fraction if record.rungs else 0.0,
                "seconds": {"total": last.seconds if last else 0.0},
                "history": [event.to_json() for event in record.history],
                "facts": {"selection": _facts(record.spec)},
                "provenance": self.provenance,
                "ended": time.time(),
            }
        )


def _facts(spec: TrialSpec) -> dict[str, Any]:
    """What every result must say of its data, also one that its worker did not write."""
    return {name: spec.task_identity.get(name, "") for name in ("context", "evidence")}


def _read(folder: TrialFolder) -> TrialRecord:
    written = json.loads(folder.spec_file.read_text())
    spec = TrialSpec.from_json(written)
    suggestion = written.get("suggestion", {})
    summary = folder.summary()
    if summary is None:
        return TrialRecord(spec, folder, INTERRUPTED, suggestion=suggestion)
    history = [Event.from_json(event) for event in summary.get("history", [])]
    state, reason = summary["state"], summary.get("reason", "")
    return TrialRecord(spec, folder, state, reason, history, suggestion)
