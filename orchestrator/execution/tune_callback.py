"""SweepCallback: applies each result of a trial to the ledger, the queue and the observers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ray import tune

from orchestrator.cluster.session import RemainingHosts
from orchestrator.execution.limits import out_of_hours
from orchestrator.execution.running_sweep import Sweep, replay_events
from orchestrator.execution.signals import DeferredSignals
from orchestrator.runs.ledger import RUNNING, TrialRecord
from orchestrator.search.repeated_failures import RepeatedFailures, stopped_launching
from trainables.spec.events import Event
from trainables.spec.states import FAILED, INTERRUPTED
from trainables.storage.errors import StorageError


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Writes each result to the ledger and passes it on to the trial queue and the observers."""

    def __init__(
        self,
        sweep: Sweep,
        scheduler: Any,
        *,
        signals: DeferredSignals | None = None,
    ) -> None:
        self._sweep = sweep
        self._scheduler = scheduler
        self._signals = signals or DeferredSignals()
        self._ended_early = False
        self._failures = RepeatedFailures()
        self.fault: Exception | None = None  # of this process; no trial has failed by it
        self._hosts_left = RemainingHosts(sweep.cluster, sweep.notify)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see QueueSearcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Calls `poll`; Tune calls this several times a second."""
        self.poll()

    def poll(self) -> None:
        """Ends the sweep if the user interrupted it or its hours are used up."""
        if self.fault is not None:
            raise self.fault
        sweep = self._sweep
        sweep.clock.update()
        self._hosts_left.poll()
        if self._ended_early:
            return
        if self._signals.asked:
            self._end("interrupted")
            sweep.notify("Interrupted: running trials save a checkpoint. Again to leave at once.")
        elif sweep.clock.used_up:
            self._end(out_of_hours(sweep.config.limits, resume_command=sweep.resume_command))

    def _end(self, reason: str) -> None:
        self._ended_early = True
        self._sweep.trial_queue.end(reason)
        self._sweep.cluster.host_scheduler.interrupt.remote()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        with self._own_work():
            self._apply(self._record(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        with self._own_work():
            if record.state == RUNNING:
                self._sweep.ledger.stopped(record)
                _free_host(trial)
            self._ended(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The trial's proxy broke, or a method above raised, which Tune tells in the same way."""
        record = self._record(trial)
        scheduler = self._sweep.cluster.host_scheduler
        scheduler.replace.remote(record.trial_id)  # the trial may still run on its host
        if self.fault is not None:
            if record.state == RUNNING:
                with suppress(StorageError):
                    self._sweep.ledger.interrupted(record)
            return
        with self._own_work():
            if self._signals.asked:  # by a signal that has ended the proxy as well
                self._sweep.ledger.interrupted(record)
            else:
                self._sweep.ledger.failed(record, f"the trial's proxy broke: {trial.error_file}")
            self._ended(record)

    @contextmanager
    def _own_work(self) -> Iterator[None]:
        """Keeps what breaks here, so that the sweep ends with it and not the trial."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error
            raise

    def _apply(self, record: TrialRecord, result: Mapping[str, Any]) -> None:
        if _has_written(result):
            record.folder.pull()
        if result.get("failure"):
            self._fail(record, result["failure"])
            return
        if result.get("interrupted"):
            self._sweep.ledger.interrupted(record)
            return
        if "history" in result:  # the first result, without an event
            self._catch_up(record, [Event.from_json(event) for event in result["history"]])
            return
        self._take(record, [Event.from_json(result["event"])])
        if result.get("stopped"):
            self._sweep.ledger.stopped(record, result["stopped"])

    def _catch_up(self, record: TrialRecord, history: Sequence[Event]) -> None:
        """Replays the events up to the checkpoint that the trial resumes from."""
        record.history = []
        replay_events(self._scheduler, self._sweep.config, record, history)
        self._take(record, history)

    def _take(self, record: TrialRecord, events: Sequence[Event]) -> None:
        record.history += events
        self._sweep.is_training |= bool(events)
        for event in events:
            if event.kind == "rung":
                self._sweep.trial_queue.rung(record, event)
        if events and events[-1].kind == "finished":
            self._sweep.ledger.finished(record)
        for watcher in self._sweep.watchers:
            watcher.trial_events(record, events)

    def _fail(self, record: TrialRecord, failure: Mapping[str, Any]) -> None:
        ledger = self._sweep.ledger
        if failure["storage"]:  # every further trial would fail alike
            with suppress(StorageError):
                ledger.interrupted(record)
            raise StorageError(failure["reason"])
        end = ledger.infeasible if failure["infeasible"] else ledger.failed
        end(record, failure["reason"])
        if record.state == FAILED and failure["may_repeat"]:
            self._count(record)

    def _count(self, record: TrialRecord) -> None:
        """Launches no further trial if so many have failed for one reason; those that run go on."""
        sweep = self._sweep
        repeats = self._failures.add(record.trial_id, record.reason)
        if repeats and not sweep.trial_queue.ended_early:
            told = stopped_launching(record.reason, resume_command=sweep.resume_command)
            sweep.repeated_failure = told
            sweep.trial_queue.end(told)
            sweep.notify(told)

    def _ended(self, record: TrialRecord) -> None:
        if record.state != INTERRUPTED:
            self._sweep.trial_queue.ended(record)
        for watcher in self._sweep.watchers:
            watcher.trial_ended(record)

    def _record(self, trial: Any) -> TrialRecord:
        return self._sweep.ledger.records[trial.config["trial_id"]]


def _free_host(trial: Any) -> None:
    """Frees the host of a trial that the scheduler has stopped.

    Tune keeps the trial's actor for a later trial, which may never come while others wait.
    """
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        actor.leave.remote()


def _has_written(result: Mapping[str, Any]) -> bool:
    """Whether the host has written files that the driver reads: predictions, a summary, a log."""
    kind = result["event"]["kind"] if "event" in result else ""
    return bool(result.get("failure") or result.get("interrupted")) or kind in ("rung", "finished")
