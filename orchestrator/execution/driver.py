"""Driver: one start of a sweep, from the state of its folder to the report.

What lies in the run folder decides what is left to do; nothing else is carried over from an
earlier start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config.sections import SweepConfig
from orchestrator.execution.limits import SweepClock, out_of_hours
from orchestrator.execution.report_split import worth_keeping, worth_reporting
from orchestrator.execution.signals import DeferredSignals, SecondInterrupt
from orchestrator.planning.planner import Planner
from orchestrator.reporting.document import Report
from orchestrator.runs.cleanup import discard_dominated_models
from orchestrator.runs.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.runs.results import read_trials
from orchestrator.runs.state import hours_are_over, read_state, remember
from orchestrator.runs.sweep_metrics import SweepMetrics, sweep_metrics
from orchestrator.runs.trial_result import ranked
from orchestrator.tracking.tracker import redact
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, STOPPED
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.cluster.session import Cluster

Outcome = Literal["finished", "nothing", "interrupted"]
_DONE = (FINISHED, STOPPED, FAILED)


@dataclass
class Driver:
    """All that one start of a sweep is given."""

    run: RunFolder
    config: SweepConfig
    planner: Planner
    address: str | None
    tracking_uri: str | None
    resume_command: str
    predicts: bool = True
    _predictions: Any = field(default=None, init=False)
    _search: Any = field(default=None, init=False)  # there is none before hosts are up
    _signals: DeferredSignals = field(default_factory=DeferredSignals, init=False)

    def show(self) -> Outcome:
        """A sweep that has ended: prints its report, and tells a tracker what it has missed."""
        self._complete_tracking()
        self._report().print()
        self._say_if_out_of_hours()
        return self._outcome(Ledger(self.run))

    def run_all(self, *, retry_failed: bool) -> Outcome:
        """Runs what is left to run and writes the report; needs the lease and a settled folder."""
        import ray

        from orchestrator.cluster.session import needs_dashboard, start_ray
        from orchestrator.execution.display import SweepDisplay
        from orchestrator.tracking.mlflow_store import tracking_command

        remember(self.run, resume_command=self.resume_command)
        clock = SweepClock(self.run, self.config.limits)
        display = SweepDisplay(self._metrics.primary)
        ledger = self._ledger(display, retry_failed=retry_failed)
        self._start_predicting(display)
        display.message("Starting Ray and its hosts ...")
        with self._signals:
            start_ray(self.address, dashboard=needs_dashboard(self.config))
            self._signals.take()  # Ray has put a handler of its own in place
            self._signals.check()
            self._check_storage()
            tracker = self._open_tracker(display)
        outcome: Outcome = "interrupted"
        at_once = False
        try:
            if self._run_on_cluster(ledger, display, tracker, clock):
                outcome = self._outcome(ledger)
        except KeyboardInterrupt as error:
            at_once = isinstance(error, SecondInterrupt)
        finally:
            display.stop()
            self._stop_predicting()
            clock.save()
            ray.shutdown()
            ledger.discard_leftovers()
            self._close(ledger, tracker, outcome, at_once=at_once)
        print(f"MLflow: {tracking_command(self._uri)}")
        return outcome

    def _ledger(self, display: Any, *, retry_failed: bool) -> Ledger:
        """What is known, with another chance for what may end otherwise this time."""
        ledger = Ledger(self.run)
        for warning in ledger.warnings:
            display.message(f"warning: {warning}")
        again = (FAILED, INFEASIBLE) if retry_failed else (INFEASIBLE,)  # on today's hardware
        for record in ledger.with_state(*again):
            ledger.run_again(record)
        if ledger.records:
            done = ledger.count(*_DONE)
            display.message(f"Resuming: {done} of {self.config.search.trials} trials are done.")
        return ledger

    def _run_on_cluster(
        self, ledger: Ledger, display: Any, tracker: Any, clock: SweepClock
    ) -> bool:
        """Trials, then the report split; False if the user interrupted them."""
        from orchestrator.execution.tune_loop import run_trials

        first = next(iter(ranked(read_trials(self.run), self._metrics.primary)), None)
        best = (first.metrics[first.primary.name], first.label) if first else None
        with self._signals:
            sweep = self._sweep(ledger, display, tracker, clock)
            display.start(self.config.search.trials, ledger.count(*_DONE), best=best)
            if not run_trials(sweep, signals=self._signals):
                return False
        if sweep.trial_queue.end_reason:
            display.message(sweep.trial_queue.end_reason)
        self._score_reports(sweep, display)
        return True

    def _sweep(self, ledger: Ledger, display: Any, tracker: Any, clock: SweepClock) -> Any:
        """Everything that a running sweep consists of; its hosts are up."""
        from orchestrator.cluster.model_prefetch import hub_models
        from orchestrator.cluster.session import open_hosts
        from orchestrator.execution.observers import DisplayWatcher, TrackerWatcher
        from orchestrator.execution.running_sweep import Sweep
        from orchestrator.runs.provenance import driver_provenance
        from orchestrator.search.searcher import Search
        from orchestrator.search.trial_queue import TrialQueue

        provenance, trials = driver_provenance(), self.config.search.trials
        cluster = open_hosts(
            self.config.resources,
            trials=trials,
            provenance=provenance,
            notify=display.message,
            check=self._signals.check,
            models=hub_models(
                self.planner.models.values(), allow_bin=self.config.execution.allow_bin_weights
            ),
        )
        self.planner.device = cluster.device
        self._forecast(cluster)
        ledger.provenance = provenance | {key: str(value) for key, value in cluster.device.items()}

        def rejected(record: TrialRecord) -> None:
            display.message(f"Rejected {record.trial_id}: {record.reason}")

        search = self._search = Search(self.config, known_trials=len(ledger.records))
        return Sweep(
            config=self.config,
            trial_queue=TrialQueue(
                planner=self.planner, search=search, ledger=ledger, on_rejected=rejected
            ),
            ledger=ledger,
            cluster=cluster,
            watchers=[DisplayWatcher(display), TrackerWatcher(tracker)],
            clock=clock,
            resume_command=self.resume_command,
            notify=display.message,
        )

    def _start_predicting(self, display: Any) -> None:
        """Its imports overlap with Ray's start."""
        from orchestrator.planning.simulator import SimulatorClient

        if self.predicts:
            cache = self.run.predictions_folder
            self._predictions = SimulatorClient(cache=cache, warn=display.message)
            self._predictions.start()

    def _forecast(self, cluster: Cluster) -> None:
        """From here on trials are held against what the cluster has."""
        from orchestrator.planning.capacity import cluster_capacity
        from orchestrator.planning.forecaster import Forecaster

        device = cluster.device
        capacity = cluster_capacity(self.config.resources, device, cluster.nodes)
        if self._predictions is not None:
            self.planner.forecaster = Forecaster(
                self._predictions,
                capacity=capacity,
                device=str(device["device_type"]),
            )

    def _stop_predicting(self) -> None:
        if self.planner.forecaster is not None:
            self.planner.forecaster.close()
        if self._predictions is not None:
            self._predictions.close()

    def _score_reports(self, sweep: Any, display: Any) -> None:
        """The report split; the sweep has ended only if all that is due on it was scored."""
        from orchestrator.execution.report_split import score_reports

        display.message("Scoring the report split ...")
        results = read_trials(self.run)
        chosen = worth_reporting(results, self._metrics.ranking)
        due = [sweep.ledger.records[trial_id] for trial_id in chosen]
        score_reports(sweep, due, notify=display.message)
        removed = discard_dominated_models(self.run, keep=worth_keeping(results, chosen))
        if removed is not None:
            display.message(removed)
        early = sweep.trial_queue.ended_early
        remember(self.run, guesses=self._trivial_baselines(), out_of_hours=early)
        if all(record.folder.report_score() for record in due) and not sweep.trial_queue.gave_up:
            done = sweep.ledger.count(*_DONE)
            remember(self.run, trials_done=done, exhausted=sweep.trial_queue.exhausted)

    def _trivial_baselines(self) -> dict[str, float]:
        """What is reached on the report split without a model."""
        from trainables.tasks.registry import make_task

        configuration = next(self.planner.cell_configurations())
        task = make_task(self.config.task, self.planner.task_options(configuration))
        return task.trivial_baselines(task.load("report"))

    def _outcome(self, ledger: Ledger) -> Outcome:
        return "finished" if ledger.count(FINISHED) else "nothing"

    def _close(self, ledger: Ledger, tracker: Any, outcome: Outcome, *, at_once: bool) -> None:
        """Writes the report and completes the tracker; `at_once` leaves both to the next start."""
        if outcome == "interrupted":
            for record in ledger.with_state(RUNNING):
                ledger.interrupted(record)
            done = f"{ledger.count(*_DONE)} of {self.config.search.trials}"
            print(f"Interrupted: {done} trials are done. Resume with: {self.resume_command}")
        if at_once:
            return
        report = self._report()
        if outcome != "interrupted":
            report.print()
            self._say_if_out_of_hours()
        self._close_tracker(tracker, outcome)
        self._export_study()

    def _export_study(self) -> None:
        """For optuna-dashboard; nothing of the sweep reads it."""
        if self._search is not None:
            database = self._search.database(self.run.path.name)
            self.run.write_bytes(self.run.study_file, database)

    def _say_if_out_of_hours(self) -> None:
        if hours_are_over(read_state(self.run), self.config.limits):
            print(out_of_hours(self.config.limits, resume_command=self.resume_command))

    def _check_storage(self) -> None:
        """Refuses storage that a node does not share, and a SQLite store on shared storage."""
        from orchestrator.cluster.storage_check import check_storage
        from orchestrator.tracking.sqlite_store import refuse_shared_sqlite

        is_shared = check_storage(self.run.storage)
        refuse_shared_sqlite(self._uri, shared_folder=self.run.path.parent if is_shared else None)

    def _open_tracker(self, display: Any) -> Any:
        """A mirror in MLflow that never waits, with what earlier starts could not tell it."""
        from orchestrator.tracking.background import BackgroundTracker
        from orchestrator.tracking.guarded import LeaseGuardedTracker
        from orchestrator.tracking.mlflow_tracker import MLflowTracker
        from orchestrator.tracking.sync import mirror_later, sweep_identity

        remember(self.run, tracked_in=None)  # until all of it is there again
        held = LeaseGuardedTracker(MLflowTracker(self._uri), guard=self.run.guard)
        tracker = BackgroundTracker(held, warn=display.message)
        tracker.open(sweep_identity(self.run))
        mirror_later(self.run, tracker, is_driven=True)
        return tracker

    def _close_tracker(self, tracker: Any, outcome: Outcome) -> None:
        """What the tracker has missed, how trials that go on at the next start stand, the end."""
        from orchestrator.tracking.sync import end_sweep, mirror_later

        mirror_later(self.run, tracker, is_driven=False)
        end_sweep(
            self.run, tracker, state="interrupted" if outcome == "interrupted" else "finished"
        )
        uri = None if tracker.incomplete else redact(self._uri)
        remember(self.run, tracked_in=uri)

    def _complete_tracking(self) -> None:
        """A sweep that has ended is given to a tracker that has missed some of it."""
        from orchestrator.execution.display import SweepDisplay
        from orchestrator.tracking.sqlite_store import is_lost, refuse_shared_sqlite

        if read_state(self.run).get("tracked_in") != redact(self._uri) or is_lost(self._uri):
            refuse_shared_sqlite(self._uri)
            tracker = self._open_tracker(SweepDisplay(self._metrics.primary))
            self._close_tracker(tracker, "finished")

    @property
    def _metrics(self) -> SweepMetrics:
        return sweep_metrics({"task": self.config.task, "objective": self.config.objective})

    @property
    def _uri(self) -> str:
        from orchestrator.tracking.mlflow_store import default_uri

        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(self.run)

    def _report(self) -> Report:
        from orchestrator.reporting.builder import write_report

        return write_report(self.run, is_driven=False)
