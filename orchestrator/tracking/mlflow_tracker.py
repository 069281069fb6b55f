"""MLflowTracker: a sweep as one parent run with one nested run per trial, in any MLflow store.

MLflow chooses its own run ids, so a run is found by its tags `sweep_id` and `trial_id`; a resumed
sweep finds the runs it made. Nothing is written twice: what a run holds is read once when its
trial starts, and the tag `mirrored` says by a digest that all of an ended trial is there. Only this
file imports mlflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.tracking.mlflow_points import Point, StoredRun, milliseconds
from orchestrator.tracking.mlflow_store import (
    MIRRORED,
    _connect,
    _digest_of_end,
    _digest_of_files,
    _experiment,
    _preference,
    _quieten,
    _remember_points,
    _reported,
    _search,
    _stored,
    _text,
    _texts,
)
from orchestrator.tracking.mlflow_tables import TABLES_TAG, table_text, tables_tag
from orchestrator.tracking.sqlite_store import alone
from orchestrator.tracking.tracker import RunEnd, RunStart, SweepEnd, SweepIdentity
from trainables.spec.events import Event
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED

STATUSES = {
    FINISHED: "FINISHED",
    STOPPED: "FINISHED",
    FAILED: "FAILED",
    INFEASIBLE: "FAILED",
    INTERRUPTED: "KILLED",
}
SWEEP = "sweep"  # the parent run's role and, in place of a trial's id, its trial_id
ADAPTER = "adapter"  # the artifact folder of a trial's adapter, and the tag with its digest


class MLflowTracker:
    """Mirrors one sweep to an MLflow store (`orchestrator.tracking.tracker.Tracker`).

    A metric's first value at a step stays. The events that end a trial (its last rung, whose
    questions are asked again in full, and `finished`) wait for `finish`, which knows the final
    values. Timestamps are the run's start plus the seconds that the trial has worked, so they
    are equal however often a point is logged. NaN and infinity are left out. All that one call
    has to say of a run's metrics, tags and parameters is one request.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._runs: dict[str, StoredRun] = {}  # all that the sweep has there, by trial
        self._begun: set[str] = set()  # those whose points are known

    def open(self, sweep: SweepIdentity) -> None:
        with _reported(self._uri):
            _quieten()
            with alone(self._uri):
                self._client = _connect(self._uri)
                self._experiment = _experiment(self._client, uri=self._uri, name=sweep.name)
            self._sweep = sweep
            self._begun.clear()
            self._runs.clear()
            self._runs = self._found_runs()
            tags = {**sweep.tags, "role": SWEEP}
            self._begin(RunStart(SWEEP, sweep.name, sweep.started, params=sweep.params, tags=tags))

    def start(self, start: RunStart) -> None:
        with _reported(self._uri):
            self._begin(self._nested(start))

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        with _reported(self._uri):
            self._send(self._runs[trial_id], points=self._runs[trial_id].take(events))

    def finish(self, end: RunEnd) -> None:
        """A state that may still go on (failed, infeasible, interrupted) logs no final metrics: the
        first value at a step stays, and the trial's end will have others."""
        with _reported(self._uri):
            found, status = self._runs.get(end.trial_id), STATUSES.get(end.state, "FAILED")
            digest = _digest_of_end(end)
            if found and (found.status, found.tags.get(MIRRORED)) == (status, digest):
                return
            if end.trial_id not in self._begun:
                self._begin(self._nested(end.start))
            run = self._runs[end.trial_id]
            points = run.take(end.history)
            if end.state not in (FAILED, INFEASIBLE, INTERRUPTED):
                points += run.take_final(end.metrics)
            own = {**self._nested(end.start).tags, **self._names(end.start)}
            tags = {**end.tags, **own, "reason": end.reason, "state": end.state}
            self._send(run, points=points, tags={**tags, TABLES_TAG: tables_tag(end.tables)})
            self._end(run, status=status)
            self._keep(run, files=end.artifacts)
            for name, rows in end.tables.items():
                self._client.log_text(run.run_id, table_text(rows), name)
            self._send(run, tags={MIRRORED: digest})

    def close(self, end: SweepEnd) -> None:
        with _reported(self._uri):
            self._runs = {**self._found_runs(), **self._runs}
            run = self._runs[SWEEP]
            # a resumed sweep may have better bests: the step is the number of trials so far
            run.last_step = max(len(self._runs) - 1, run.last_step + 1)
            run.last_time = max(self._runs.values(), key=lambda item: item.last_time).last_time
            self._send(run, points=run.take_final(end.metrics), tags={"state": end.state})
            self._end(run, status=STATUSES.get(end.state, "FAILED"))
            self._keep(run, files=end.artifacts)
            for trial_id in end.adapters.keys() & self._runs.keys():
                self._keep_adapter(self._runs[trial_id], end.adapters[trial_id])

    def _nested(self, start: RunStart) -> RunStart:
        parent = self._runs[SWEEP].run_id
        return replace(start, tags={**start.tags, "mlflow.parentRunId": parent})

    def _names(self, start: RunStart) -> dict[str, str]:
        """What a run is found by: nothing that a summary says may stand in its place."""
        return {"sweep_id": self._sweep.sweep_id, "trial_id": start.trial_id}

    def _begin(self, start: RunStart) -> None:
        """The run as one that goes on, made where there is none; its points are known then."""
        tags = _texts({**start.tags, **self._names(start), "state": "running"})
        run = self._runs.get(start.trial_id)
        if run is None:
            begun = milliseconds(start.started)
            made = self._client.create_run(
                self._experiment, start_time=begun, tags=tags, run_name=start.name
            )
            run = self._runs[start.trial_id] = _stored(made)
        elif run.tags.get(MIRRORED):
            tags[MIRRORED] = ""  # from here on it is not
        new = {name: _text(value) for name, value in start.params.items() if name not in run.params}
        self._send(run, params=new, tags=tags)
        if run.status != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING", name=start.name)
            run.status = "RUNNING"
        if start.trial_id not in self._begun:
            _remember_points(self._client, run)
        self._begun.add(start.trial_id)

    def _found_runs(self) -> dict[str, StoredRun]:
        """The sweep's runs by trial. A second one of a trial, left by a "create run" whose answer
        was lost, is deleted: whatever it holds lies in the trial's folder."""
        ours = {run.run_id for run in self._runs.values()}
        runs: dict[str, StoredRun] = {}
        found = [_stored(run) for run in _search(self._client, self._experiment, self._sweep)]
        for run in sorted(found, key=lambda run: (run.run_id not in ours, *_preference(run))):
            trial_id = run.tags["trial_id"]
            if trial_id in runs:
                self._client.delete_run(run.run_id)
            else:
                runs[trial_id] = run
        return runs

    def _send(
        self,
        run: StoredRun,
        *,
        points: Iterable[Point] = (),
        params: Mapping[str, str] = {},
        tags: Mapping[str, str] = {},
    ) -> None:
        """What the run lacks of it, in one request (MLflow's client splits what is too much)."""
        from mlflow.entities import Metric, Param, RunTag

        new = {key: value for key, value in _texts(tags).items() if run.tags.get(key) != value}
        self._client.log_batch(
            run.run_id,
            metrics=[Metric(point.name, point.value, point.time, point.step) for point in points],
            params=[Param(*item) for item in params.items()],
            tags=[RunTag(*item) for item in new.items()],
        )
        run.tags.update(new)
        run.params = [*run.params, *params]

    def _end(self, run: StoredRun, *, status: str) -> None:
        self._client.set_terminated(run.run_id, status=status, end_time=run.last_time)
        run.status = status

    def _keep(self, run: StoredRun, *, files: Sequence[Path]) -> None:
        """Sends files that are there; one that was sent before is written over."""
        for file in files:
            self._client.log_artifact(run.run_id, str(file))

    def _keep_adapter(self, run: StoredRun, folder: Path) -> None:
        digest = _digest_of_files(sorted(file for file in folder.rglob("*") if file.is_file()))
        if run.tags.get(ADAPTER) != digest:
            self._client.log_artifacts(run.run_id, str(folder), ADAPTER)
            self._send(run, tags={ADAPTER: digest})
