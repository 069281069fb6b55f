"""Ledger: the state of every trial of a sweep, read from the trial folders at each start.

The folders are authoritative. The ledger is the driver's copy; it writes back what only the driver
decides: that a trial was stopped early, failed, or is infeasible.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.spec.events import Event
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STATES, STOPPED, TRIAL
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.atomic_files import Json
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import DamagedError
from trainables.storage.trial_folder import TrialFolder

RUNNING = "running"
LOG_TAIL_LINES, LOG_TAIL_BYTES = 40, 16_384


@dataclass
class TrialRecord:
    """One trial: its spec, its state and all events that it has reported."""

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
        """The events of its evaluations, in order."""
        return [event for event in self.history if event.kind == "rung"]

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of each metric."""
        latest: dict[str, float] = {}
        for event in self.history:
            latest.update(event.metrics)
        return latest


class Ledger:
    """All trials of one run folder by id, in the order in which they were first suggested.

    Damaged files are ignored, with a line in `warnings`: a trial without a valid spec is none, and
    one without a valid result runs again from its last valid checkpoint. Raises InputError if a
    file can't be read, or for a symbolic link.
    """

    def __init__(self, run: RunFolder) -> None:
        _refuse_links(run)
        self.run = run
        self.provenance: dict[str, str] = {}  # of this start, for the summaries it writes
        self.warnings: list[str] = []
        self.records: dict[str, TrialRecord] = {}
        for folder in list(run.trials()):
            self._read(folder)
        for place in run.without_spec():
            self._warn(place, "its spec is gone, so it is no trial any more")

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.records.values())

    def get(self, trial_id: str) -> TrialRecord | None:
        return self.records.get(trial_id)

    def count(self, *states: str, role: str = TRIAL) -> int:
        return sum(record.spec.role == role and record.state in states for record in self)

    def with_state(self, *states: str) -> list[TrialRecord]:
        return [record for record in self if record.state in states]

    def add(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> TrialRecord:
        """Writes the spec of a new trial, which makes it part of the sweep."""
        folder = self.run.trial(spec.trial_id)
        folder.write_spec(spec, suggestion)
        record = TrialRecord(spec, folder, INTERRUPTED, suggestion=dict(suggestion))
        self.records[spec.trial_id] = record
        return record

    def finished(self, record: TrialRecord) -> None:
        """Marks a trial finished; its worker has already written the summary."""
        record.state = FINISHED

    def stopped(self, record: TrialRecord, reason: str = "") -> None:
        """Ends a trial before its budget is spent, by default because the scheduler says so."""
        last = record.rungs[-1] if record.rungs else None
        at = f"at {last.fraction:.0%} of its budget" if last else "before its first rung"
        self._end(record, STOPPED, reason or f"stopped early {at}")
        record.folder.discard_checkpoints()

    def interrupted(self, record: TrialRecord) -> None:
        """Marks a trial that continues from its checkpoint at the sweep's next start."""
        record.state = INTERRUPTED
        known = record.folder.progress() or {}
        record.folder.write_progress({**known, "state": INTERRUPTED, "updated": time.time()})

    def discard_leftovers(self) -> None:
        """Deletes checkpoints that hosts wrote after their trials had been stopped."""
        for record in self.with_state(STOPPED):
            record.folder.discard_checkpoints()

    def failed(self, record: TrialRecord, reason: str) -> None:
        self._end(record, FAILED, reason)

    def infeasible(self, record: TrialRecord, reason: str) -> None:
        """Ends a trial that can't run here. Unlike a failed one it keeps no checkpoint: on other
        hardware it starts anew."""
        self._end(record, INFEASIBLE, reason)
        record.folder.discard_checkpoints()

    def run_again(self, record: TrialRecord) -> None:
        """Lets a failed or infeasible trial run again, from its last checkpoint."""
        record.folder.discard_result()
        record.state, record.reason, record.history = INTERRUPTED, "", []

    def _read(self, folder: TrialFolder) -> None:
        """Reads a trial; a damaged spec is set aside, and the search may suggest it again."""
        try:
            spec, suggestion = folder.spec_and_suggestion()
        except DamagedError as error:
            self._set_aside(folder, folder.spec_file, str(error))
            return
        except OSError as error:
            raise InputError(_unreadable(folder, error)) from error
        record = TrialRecord(spec, folder, INTERRUPTED, suggestion=suggestion)
        self.records[folder.trial_id] = record
        self._read_result(record)

    def _read_result(self, record: TrialRecord) -> None:
        folder = record.folder
        try:
            _read_summary(record, folder.read(folder.summary_file))
            damaged = folder.damaged_files()
        except FileNotFoundError:
            return
        except DamagedError as error:
            self._set_aside(folder, folder.summary_file, f"{error}; the trial runs again")
            return
        except OSError as error:
            raise InputError(_unreadable(folder, error)) from error
        self._discard_damaged(record, damaged)

    def _discard_damaged(self, record: TrialRecord, damaged: Sequence[Path]) -> None:
        """Discards a finished result, or a report score, whose predictions are damaged."""
        folder = record.folder
        if record.state == FINISHED and folder.predictions_file() in damaged:
            self._warn(folder.predictions_file(), "damaged or gone; the trial runs again")
            self.run_again(record)
        elif folder.report_score_file.exists():
            whole = folder.report_score() and folder.predictions_file("report") not in damaged
            if not whole:
                again = "damaged, or its predictions are; it is scored again"
                self._set_aside(folder, folder.report_score_file, again)

    def _set_aside(self, folder: TrialFolder, file: Path, why: str) -> None:
        folder.set_aside(file)
        self._warn(file, f"{why}. It is set aside as {file.name}.damaged")

    def _warn(self, file: Path, what: str) -> None:
        self.warnings.append(f"{file}: {what}.")

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
                **({"log_tail": _log_tail(record.folder.log_file)} if state == FAILED else {}),
            }
        )


def _log_tail(log: Path) -> list[str]:
    """The last lines of a worker's log, if it exists."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-LOG_TAIL_LINES:]


def _facts(spec: TrialSpec) -> dict[str, Any]:
    """The facts about its data that every result states, also one written by the driver."""
    return {name: spec.task_identity.get(name, "") for name in ("context", "evidence")}


def _read_summary(record: TrialRecord, summary: Json) -> None:
    """Copies the state from a summary; raises DamagedError if it has no valid one."""
    try:
        history = [Event.from_json(event) for event in summary.get("history", [])]
        state, reason = str(summary["state"]), str(summary.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"damaged: no summary ({error!r})") from error
    if state not in STATES:
        raise DamagedError(f"damaged: a trial is never {state!r}")
    record.state, record.reason, record.history = state, reason, history


def _refuse_links(run: RunFolder) -> None:
    links = run.links()
    if links:
        raise InputError(
            [
                f"{link}: is a symbolic link; what a trial writes must stay in the run's folder. "
                "Put the file or folder itself there, or remove the link."
                for link in links
            ]
        )


def _unreadable(folder: TrialFolder, error: OSError) -> str:
    return f"{folder.path}: can't be read ({error.strerror}: {error.filename}). Make it readable."
