"""MLflowTracker: a sweep as one parent run with one nested run per trial, in any MLflow store.

MLflow chooses its own run ids, so a run is found by its tags `sweep_id` and `trial_id`; a resumed
sweep finds the runs it made. Nothing is written twice: what a run holds is read once when its
trial starts. Only this file imports mlflow.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.mlflow_points import Point, StoredRun, milliseconds
from orchestrator.sqlite_store import alone, sqlite_file
from orchestrator.tracking import RunEnd, RunStart, SweepIdentity, TrackingError, redact
from trainables.run_folder import RunFolder
from trainables.spec import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED, Event

STATUSES = {
    FINISHED: "FINISHED",
    STOPPED: "FINISHED",
    FAILED: "FAILED",
    INFEASIBLE: "FAILED",
    INTERRUPTED: "KILLED",
}
SWEEP = "sweep"  # the parent run's role and, in place of a trial's id, its trial_id
METRICS_PER_REQUEST = 1000  # MLflow's limits
ENTRIES_PER_REQUEST = 100
LONGEST_VALUE = 5000  # characters of a parameter or tag; MLflow takes 6000 and 8000
ENVIRONMENT = {  # unless the user has set them
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds until a silent server is given up
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a repeated "create run" would make two
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",
}


def default_uri(run: RunFolder) -> str:
    """The store beside the sweeps of a storage folder."""
    return f"sqlite:///{run.tracking_database.resolve()}"


def tracking_command(uri: str) -> str:
    """The command line that shows the store in a browser; a server is shown by its address."""
    if uri.startswith(("http://", "https://")):
        return f"open {redact(uri)}"
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program) if program.exists() else "mlflow", "ui", "--backend-store-uri"]
    return shlex.join([*command, redact(uri)])


class MLflowTracker:
    """Mirrors one sweep to an MLflow store (`orchestrator.tracking.Tracker`).

    A metric's first value at a step stays. The events that end a trial (its last rung, whose
    questions are asked again in full, and `finished`) wait for `finish`, which knows the final
    values. Timestamps are the run's start plus the seconds that the trial has worked, so they
    are equal however often a point is logged. NaN and infinity are left out.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._runs: dict[str, StoredRun] = {}

    def open(self, sweep: SweepIdentity) -> None:
        with _reported(self._uri):
            _quieten()
            with alone(self._uri):
                self._client = _connect(self._uri)
                self._experiment = _experiment(self._client, uri=self._uri, name=sweep.name)
            self._sweep = sweep
            tags = {**sweep.tags, "role": SWEEP}
            self._begin(RunStart(SWEEP, sweep.name, time.time(), params=sweep.params, tags=tags))

    def start(self, start: RunStart) -> None:
        with _reported(self._uri):
            tags = {**start.tags, "mlflow.parentRunId": self._runs[SWEEP].run_id}
            self._begin(replace(start, tags=tags))

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        with _reported(self._uri):
            self._send(self._runs[trial_id], self._runs[trial_id].take(events))

    def finish(self, end: RunEnd) -> None:
        """A state that may still go on (failed, interrupted) logs no final metrics: the first
        value at a step stays, and the trial's end will have others."""
        with _reported(self._uri):
            run = self._runs[end.trial_id]
            self._send(run, run.take(end.history))
            if end.state not in (FAILED, INTERRUPTED):
                self._send(run, run.take_final(end.metrics))
            tags = {**end.tags, "reason": end.reason}
            self._end(run, state=end.state, tags=tags, artifacts=end.artifacts)

    def close(
        self, *, state: str, metrics: Mapping[str, float], artifacts: Sequence[Path] = ()
    ) -> None:
        with _reported(self._uri):
            run = self._runs[SWEEP]
            # a resumed sweep may have better bests: the step is the number of trials so far
            run.last_step = max(len(self._runs) - 1, run.last_step + 1)
            run.last_time = milliseconds(time.time())
            self._send(run, run.take_final(metrics))
            self._end(run, state=state, tags={}, artifacts=artifacts)

    def _begin(self, start: RunStart) -> None:
        ours = {"sweep_id": self._sweep.sweep_id, "trial_id": start.trial_id, "state": "running"}
        texts = {key: str(value)[:LONGEST_VALUE] for key, value in {**start.tags, **ours}.items()}
        found = self._find(start.trial_id)
        if found is None:
            begun = milliseconds(start.started)
            found = self._client.create_run(
                self._experiment, start_time=begun, tags=texts, run_name=start.name
            )
        else:
            self._client.update_run(found.info.run_id, status="RUNNING", name=start.name)
        self._runs[start.trial_id] = run = _read(self._client, found)
        new = {k: _text(value) for k, value in start.params.items() if k not in found.data.params}
        self._write(run, params=new, tags=texts)

    def _find(self, trial_id: str) -> Any:
        found = self._client.search_runs(
            [self._experiment],
            f"tags.trial_id = '{trial_id}' and tags.sweep_id = '{self._sweep.sweep_id}'",
            max_results=1,
            order_by=["attributes.start_time ASC"],
        )
        return found[0] if found else None

    def _send(self, run: StoredRun, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        for chunk in _chunks(metrics, METRICS_PER_REQUEST):
            self._client.log_batch(run.run_id, metrics=chunk)

    def _write(self, run: StoredRun, *, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        for chunk in _chunks([Param(*item) for item in params.items()], ENTRIES_PER_REQUEST):
            self._client.log_batch(run.run_id, params=chunk)
        new = {key: value for key, value in tags.items() if run.tags.get(key) != value}
        for part in _chunks([RunTag(*item) for item in new.items()], ENTRIES_PER_REQUEST):
            self._client.log_batch(run.run_id, tags=part)
        run.tags.update(new)

    def _end(
        self, run: StoredRun, *, state: str, tags: Mapping[str, str], artifacts: Sequence[Path]
    ) -> None:
        texts = {key: str(value)[:LONGEST_VALUE] for key, value in tags.items()}
        self._write(run, params={}, tags={**texts, "state": state})
        stored = {item.path: item.file_size for item in self._client.list_artifacts(run.run_id)}
        for file in artifacts:
            if stored.get(file.name) != file.stat().st_size:
                self._client.log_artifact(run.run_id, str(file))
        status = STATUSES.get(state, "FAILED")
        self._client.set_terminated(run.run_id, status=status, end_time=run.last_time)


def _quieten() -> None:
    """Before mlflow is imported, which reads its settings then."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _connect(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: Any, *, uri: str, name: str) -> str:
    """The id of the sweep's experiment, created or restored; a local store keeps its artifacts
    beside its database, and not in the folder that the program was started in."""
    database = sqlite_file(uri)
    location = str(database.resolve().parent / "artifacts" / name) if database else None
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _read(client: Any, found: Any) -> StoredRun:
    run = StoredRun(found.info.run_id, found.info.start_time, dict(found.data.tags))
    run.last_time = run.started
    for name in found.data.metrics:
        for metric in client.get_metric_history(run.run_id, name):
            run.remember(Point(name, metric.step, metric.value, metric.timestamp))
    return run


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_VALUE]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def _reported(uri: str) -> Iterator[None]:
    """Turns what a store that is away, broken or no MLflow raises into TrackingError."""
    try:
        yield
    except _outside_errors() as error:
        cause = redact(str(_root(error))).strip() or type(error).__name__
        message = f"MLflow at {redact(uri)} can't be used: {cause.splitlines()[0][:200]}"
        raise TrackingError(message) from None  # the cause's text may hold the password


def _outside_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: a database's driver that is not installed
    return (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError)


def _root(error: BaseException) -> BaseException:
    """The system's own error, which is short, where a network or a disk is behind it."""
    deepest = error
    while (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    return deepest if isinstance(deepest, OSError) else error
