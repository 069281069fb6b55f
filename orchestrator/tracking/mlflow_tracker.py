"""MLflowTracker: a sweep as one parent run with one nested run per trial, in any MLflow store.

MLflow chooses its own run ids, so runs are found by their tags `sweep_id` and `trial_id`, also by a
resumed sweep. Nothing is written twice: the points of a run are read once when its trial starts,
and the tag `mirrored` holds the digest of a complete, ended trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.tracking.mlflow_points import Point, StoredRun, milliseconds
from orchestrator.tracking.mlflow_store import (
    MIRRORED,
    artifacts_folder,
    connect,
    create_store,
    digest_of_end,
    digest_of_files,
    find_or_create_experiment,
    preference,
    remember_points,
    search_runs,
    silence_mlflow,
    stored_run,
    text_of,
    texts_of,
    tracking_errors,
)
from orchestrator.tracking.mlflow_tables import TABLES_TAG, table_text, tables_tag
from orchestrator.tracking.sqlite_store import exclusive_access
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
PARENT = "mlflow.parentRunId"
ADAPTER = "adapter"  # the artifact folder of a trial's adapter, and the tag with its digest


class MLflowTracker:
    """Mirrors one sweep to an MLflow store (`orchestrator.tracking.tracker.Tracker`).

    The first value of a metric at a step is kept. The metrics of the events that end a trial (its
    last rung, which is evaluated again in full, and `finished`) are held back until `finish`, which
    has the final values. Timestamps are the run's start plus the seconds that the trial has worked,
    so a point that is logged again has the same one. NaN and infinity are left out. Each call
    writes metrics, tags and parameters of a run in one request.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._runs: dict[str, StoredRun] = {}  # all runs of the sweep, by trial
        self._begun: set[str] = set()  # the trials whose points are known

    def open(self, sweep: SweepIdentity) -> None:
        with tracking_errors(self._uri):
            silence_mlflow()
            with exclusive_access(self._uri):
                create_store(self._uri)
                self._client = connect(self._uri)
                self._experiment = find_or_create_experiment(
                    self._client, uri=self._uri, name=sweep.name
                )
            self._sweep = sweep
            self._begun.clear()
            self._runs.clear()
            self._artifacts = artifacts_folder(self._uri, sweep.name)
            self._runs = self._found_runs()
            tags = {**sweep.tags, "role": SWEEP}
            self._begin(RunStart(SWEEP, sweep.name, sweep.started, params=sweep.params, tags=tags))
            self._adopt_orphans()

    def start(self, start: RunStart) -> None:
        with tracking_errors(self._uri):
            self._begin(self._nested(start))

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        with tracking_errors(self._uri):
            self._send(self._runs[trial_id], points=self._runs[trial_id].take(events))

    def finish(self, end: RunEnd) -> None:
        """Logs no final metrics for a trial that may still continue (failed, infeasible,
        interrupted): its end will have others, and the first value at a step is kept."""
        with tracking_errors(self._uri):
            found, status = self._runs.get(end.trial_id), STATUSES.get(end.state, "FAILED")
            digest = digest_of_end(end)
            files = [*(file.name for file in end.artifacts), *end.tables]
            is_there = found and (found.status, found.tags.get(MIRRORED)) == (status, digest)
            if found and is_there and self._has_files(found, files):
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
        with tracking_errors(self._uri):
            self._runs = {**self._found_runs(), **self._runs}
            run = self._runs[SWEEP]
            # a resumed sweep may have a better best trial: the step is the number of trials
            run.last_step = max(len(self._runs) - 1, run.last_step + 1)
            run.last_time = max(self._runs.values(), key=lambda item: item.last_time).last_time
            self._send(run, points=run.take_final(end.metrics), tags={"state": end.state})
            self._end(run, status=STATUSES.get(end.state, "FAILED"))
            self._keep(run, files=end.artifacts)
            for trial_id in end.adapters.keys() & self._runs.keys():
                self._keep_adapter(self._runs[trial_id], end.adapters[trial_id])

    def _adopt_orphans(self) -> None:
        """Nests the runs below the parent run, which is new if someone has deleted the other."""
        parent = self._runs[SWEEP].run_id
        for trial_id, run in self._runs.items():
            if trial_id != SWEEP and run.tags.get(PARENT) != parent:
                self._send(run, tags={PARENT: parent})

    def _has_files(self, run: StoredRun, names: Iterable[str]) -> bool:
        """Whether a SQLite store, whose files can be moved without it, has a run's artifacts."""
        if self._artifacts is None:
            return True
        folder = self._artifacts / run.run_id / "artifacts"
        return all((folder / name).exists() for name in names)

    def _nested(self, start: RunStart) -> RunStart:
        parent = self._runs[SWEEP].run_id
        return replace(start, tags={**start.tags, PARENT: parent})

    def _names(self, start: RunStart) -> dict[str, str]:
        """The tags by which a run is found; no tag of a summary may replace them."""
        return {"sweep_id": self._sweep.sweep_id, "trial_id": start.trial_id}

    def _begin(self, start: RunStart) -> None:
        """Creates or reopens a run and reads its points."""
        tags = texts_of({**start.tags, **self._names(start), "state": "running"})
        run = self._runs.get(start.trial_id)
        if run is None:
            begun = milliseconds(start.started)
            made = self._client.create_run(
                self._experiment, start_time=begun, tags=tags, run_name=start.name
            )
            run = self._runs[start.trial_id] = stored_run(made)
        elif run.tags.get(MIRRORED):
            tags[MIRRORED] = ""
        new = {
            name: text_of(value) for name, value in start.params.items() if name not in run.params
        }
        self._send(run, params=new, tags=tags)
        if run.status != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING", name=start.name)
            run.status = "RUNNING"
        if start.trial_id not in self._begun:
            remember_points(self._client, run)
        self._begun.add(start.trial_id)

    def _found_runs(self) -> dict[str, StoredRun]:
        """The sweep's runs by trial. A second run of a trial, left by a "create run" whose answer
        was lost, is deleted: the trial's folder has all that it holds."""
        ours = {run.run_id for run in self._runs.values()}
        runs: dict[str, StoredRun] = {}
        found = [
            stored_run(run) for run in search_runs(self._client, self._experiment, self._sweep)
        ]
        for run in sorted(found, key=lambda run: (run.run_id not in ours, *preference(run))):
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
        """Writes what the run lacks in one request (MLflow's client splits a large one)."""
        from mlflow.entities import Metric, Param, RunTag

        new = {key: value for key, value in texts_of(tags).items() if run.tags.get(key) != value}
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
        """Uploads files; an earlier version is overwritten."""
        for file in files:
            self._client.log_artifact(run.run_id, str(file))

    def _keep_adapter(self, run: StoredRun, folder: Path) -> None:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [f"{ADAPTER}/{file.relative_to(folder)}" for file in files]
        digest = digest_of_files(files)
        if run.tags.get(ADAPTER) != digest or not self._has_files(run, names):
            self._client.log_artifacts(run.run_id, str(folder), ADAPTER)
            self._send(run, tags={ADAPTER: digest})
