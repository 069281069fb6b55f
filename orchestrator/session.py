"""Session: one driver's work on a sweep, from the state of its folder to the report.

What lies in the run folder decides what is left to do; nothing else is carried over from an
earlier session.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config import SweepConfig, from_mapping, to_mapping
from orchestrator.differences import differences
from orchestrator.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.plan import Planner
from orchestrator.report_content import Report
from orchestrator.tracking import redact
from trainables.errors import InputError
from trainables.run_folder import RunFolder
from trainables.spec import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED

Outcome = Literal["finished", "nothing", "interrupted"]
_DONE = (FINISHED, STOPPED, FAILED)
_OF_THE_BEST = (
    "em_acc",
    "em_acc_strict",
    "em_acc_numeric",
    "eval_loss",
    "train_peak_memory_bytes",
    "eval_peak_memory_bytes",
)


def make_folder(run: RunFolder) -> None:
    """Makes the run folder; raises InputError if it can't be written."""
    probe = run.path / ".probe"
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_text(probe, "")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"{run.path}: can't be written ({error.strerror}). "
            "Give a folder that can with --storage."
        ) from error


def settle(run: RunFolder, config: SweepConfig) -> str:
    """The sweep's id, made if the run is new; its sweep.yaml is this configuration from here on.

    For the holder of the lease only. Raises InputError if another space ran under this name.
    """
    import yaml

    state = run.state() or {"sweep_id": uuid.uuid4().hex[:12]}
    if run.sweep_file.exists():
        _refuse_another_space(run, config)
    run.write_state(state)
    text = yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)
    run.write_text(run.sweep_file, text)
    return str(state["sweep_id"])


@dataclass
class Session:
    """All that one driver is given."""

    run: RunFolder
    config: SweepConfig
    planner: Planner
    sweep_id: str
    address: str | None
    tracking_uri: str | None
    resume_command: str

    def run_all(self, *, retry_failed: bool = False) -> Outcome:
        """Runs what is left to run and writes the report; a finished sweep only prints it."""
        ledger = Ledger(self.run)
        self._remember(resume_command=self.resume_command)
        if retry_failed:
            for record in ledger.with_state(FAILED):
                ledger.run_again(record)
        if self._is_finished(ledger):
            self._complete_tracking()
            self._report().print()
            return self._outcome(ledger)
        for record in ledger.with_state(INFEASIBLE):  # judged anew on today's hardware
            ledger.run_again(record)
        return self._run(ledger)

    def _run(self, ledger: Ledger) -> Outcome:
        import ray

        from orchestrator.mlflow_tracker import MLflowTracker, tracking_command
        from orchestrator.terminal import SweepDisplay
        from orchestrator.tracking import BackgroundTracker

        display = SweepDisplay()
        done = ledger.count(*_DONE)
        if ledger.records:
            display.message(f"Resuming: {done} of {self.config.search.trials} trials are done.")
        tracker = BackgroundTracker(MLflowTracker(self._uri), warn=display.message)
        _open_tracker(self, tracker)
        display.message("Starting Ray and its hosts ...")
        _start_ray(self.address)
        try:
            interrupted = self._run_on_cluster(ledger, display, tracker)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            display.stop()
            ray.shutdown()
        outcome: Outcome = "interrupted" if interrupted else self._outcome(ledger)
        self._close(ledger, tracker, outcome)
        print(f"MLflow: {tracking_command(self._uri)}")
        return outcome

    def _run_on_cluster(self, ledger: Ledger, display: Any, tracker: Any) -> bool:
        """Trials, then the report split; True if the user interrupted it."""
        import ray

        from orchestrator.agenda import Agenda
        from orchestrator.hosts import host_shape, start_admission
        from orchestrator.mirror import finish_trial
        from orchestrator.provenance import driver_provenance
        from orchestrator.runner import Sweep, run_trials, score_reports
        from orchestrator.search import Search
        from orchestrator.watchers import DisplayWatcher, TrackerWatcher

        wanted = self.config.resources
        shape = host_shape(
            ray.cluster_resources(),
            cpus=wanted.cpus_per_trial,
            gpus=wanted.gpus_per_trial,
            count=wanted.concurrent_trials,
        )
        name = f"admission-{self.sweep_id}-{uuid.uuid4().hex[:8]}"  # a killed driver's may linger
        provenance = driver_provenance()
        admission = start_admission(name, shape, provenance=provenance)
        self.planner.device = ray.get(admission.open.remote())
        device = {name: str(value) for name, value in self.planner.device.items()}
        ledger.provenance = provenance | device
        agenda = Agenda(
            planner=self.planner,
            search=Search(self.config, known_trials=len(ledger.records)),
            ledger=ledger,
            on_rejected=lambda record: display.message(
                f"Rejected {record.trial_id}: {record.reason}"
            ),
        )
        sweep = Sweep(
            config=self.config,
            agenda=agenda,
            ledger=ledger,
            admission=admission,
            admission_name=name,
            concurrency=shape.count,
            watchers=[DisplayWatcher(display), TrackerWatcher(tracker)],
        )
        display.start(self.config.search.trials, ledger.count(*_DONE))
        if not run_trials(sweep):
            return True
        if agenda.exhausted:
            display.message("space exhausted: there are no more configurations to try.")
        display.message("Scoring the report split ...")
        for record in score_reports(
            sweep, _worth_reporting(self.run, ledger, self.config.objective)
        ):
            finish_trial(tracker, record.folder)
        self._remember(guesses=self._guesses())
        self._remember(trials_done=ledger.count(*_DONE), exhausted=agenda.exhausted)
        return False

    def _guesses(self) -> dict[str, float]:
        """How far one gets on the report split without a model."""
        from trainables.tasks import make_task
        from trainables.tasks.guesses import guesses

        configuration = next(self.planner.cell_configurations())
        task = make_task(self.config.task, self.planner.task_options(configuration))
        return guesses(task, task.load("report"))

    def _remember(self, **facts: Any) -> None:
        self.run.write_state({**(self.run.state() or {}), **facts})

    def _is_finished(self, ledger: Ledger) -> bool:
        state = self.run.state() or {}
        enough = state.get("exhausted") or (
            state.get("trials_done", -1) >= self.config.search.trials
        )
        return bool(enough) and not ledger.with_state(INTERRUPTED)

    def _outcome(self, ledger: Ledger) -> Outcome:
        return "finished" if ledger.count(FINISHED) else "nothing"

    def _close(self, ledger: Ledger, tracker: Any, outcome: Outcome) -> None:
        """Writes the report, and ends the tracker's parent run with it."""
        report = self._report()
        if outcome == "interrupted":
            for record in ledger.with_state(INTERRUPTED, RUNNING):
                _finish_in(tracker, record)
            done = f"{ledger.count(*_DONE)} of {self.config.search.trials}"
            print(f"Interrupted: {done} trials are done. Resume with: {self.resume_command}")
        else:
            report.print()
        self._close_tracker(ledger, tracker, state=outcome)

    def _close_tracker(self, ledger: Ledger, tracker: Any, *, state: str) -> None:
        run = self.run
        files = (run.report_file, run.results_file, run.pareto_file, run.sweep_file)
        tracker.close(
            state="interrupted" if state == "interrupted" else "finished",
            metrics=_best_metrics(ledger),
            artifacts=[file for file in files if file.exists()],
        )
        self._remember(tracked_in=None if tracker.incomplete else redact(self._uri))

    def _complete_tracking(self) -> None:
        """A finished sweep is given to a tracker that has missed some of it."""
        from orchestrator.mlflow_tracker import MLflowTracker
        from orchestrator.tracking import BackgroundTracker

        if (self.run.state() or {}).get("tracked_in") == redact(self._uri):
            return
        tracker = BackgroundTracker(MLflowTracker(self._uri), warn=print)
        _open_tracker(self, tracker)
        self._close_tracker(Ledger(self.run), tracker, state="finished")

    @property
    def _uri(self) -> str:
        from orchestrator.mlflow_tracker import default_uri

        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(self.run)

    def _report(self) -> Report:
        from orchestrator.report import write_report

        return write_report(self.run)


def _refuse_another_space(run: RunFolder, config: SweepConfig) -> None:
    import yaml

    before = from_mapping(yaml.safe_load(run.sweep_file.read_text()))
    changes = differences(before, config)
    if changes:
        raise InputError(
            [
                f"{run.path}: this run was started with another space.",
                *(f"  {change}" for change in changes),
                "  Give the new space another --name, or take the change back to resume.",
            ]
        )


def _start_ray(address: str | None) -> None:
    import logging

    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=address,
            namespace="sweep",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if address not in (None, "local") else False,
        )
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({error}). "
            "Start one with: ray up cluster.yaml"
        ) from error


def _open_tracker(session: Session, tracker: Any) -> None:
    """Opens the mirror and fills in what an earlier session could not tell it."""
    from orchestrator.mirror import mirror
    from orchestrator.tracking import SweepIdentity

    config = to_mapping(session.config)
    params = {name: config[name] for name in ("task", "objective", "budget", "search", "scheduler")}
    tracker.open(SweepIdentity(session.sweep_id, session.run.path.name, params=params))
    mirror(session.run, tracker)


def _finish_in(tracker: Any, record: TrialRecord) -> None:
    from orchestrator.mirror import finish_trial, start_trial

    start_trial(tracker, record.folder)
    finish_trial(tracker, record.folder)


def _worth_reporting(run: RunFolder, ledger: Ledger, metric: str) -> list[TrialRecord]:
    """The winner and the Pareto points: the only trained trials that see the report split."""
    from orchestrator.pareto import front
    from orchestrator.results import read_trials
    from orchestrator.trial_result import ranked

    results = read_trials(run)
    chosen = {item.trial_id: item for item in [*ranked(results, metric)[:1], *front(results)]}
    return [ledger.records[trial_id] for trial_id in chosen]


def _best_metrics(ledger: Ledger) -> dict[str, float]:
    finished = [record for record in ledger if record.is_trial and record.state == FINISHED]
    if not finished:
        return {}
    best = max(finished, key=lambda record: record.metrics.get("em_acc", 0.0))
    return {f"best_{name}": best.metrics[name] for name in _OF_THE_BEST if name in best.metrics}
