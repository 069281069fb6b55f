"""Driver: one start of a sweep, from the state of its folder to the report.

What lies in the run folder decides what is left to do; nothing else is carried over from an
earlier start.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config import SweepConfig, to_mapping
from orchestrator.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.plan import Planner
from orchestrator.report_content import Report
from orchestrator.results import read_trials
from orchestrator.run_state import read_state, remember
from orchestrator.tracking import redact
from orchestrator.trial_result import TrialResult, ranked
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


@dataclass
class Driver:
    """All that one start of a sweep is given."""

    run: RunFolder
    config: SweepConfig
    planner: Planner
    address: str | None
    tracking_uri: str | None
    resume_command: str

    def show(self) -> Outcome:
        """A sweep that has ended: prints its report, and tells a tracker what it has missed."""
        self._complete_tracking()
        self._report().print()
        return self._outcome(Ledger(self.run))

    def run_all(self, *, retry_failed: bool) -> Outcome:
        """Runs what is left to run and writes the report; needs the lease and a settled folder."""
        import ray

        from orchestrator.cluster import start_ray
        from orchestrator.mlflow_tracker import tracking_command
        from orchestrator.terminal import SweepDisplay

        remember(self.run, resume_command=self.resume_command)
        display = SweepDisplay()
        ledger = self._ledger(display, retry_failed=retry_failed)
        display.message("Starting Ray and its hosts ...")
        start_ray(self.address)
        tracker = self._open_tracker(display)
        outcome: Outcome = "interrupted"
        try:
            if self._run_on_cluster(ledger, display, tracker):
                outcome = self._outcome(ledger)
        except KeyboardInterrupt:
            pass  # the outcome says so already
        finally:
            display.stop()
            ray.shutdown()
            self._close(ledger, tracker, outcome)
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

    def _run_on_cluster(self, ledger: Ledger, display: Any, tracker: Any) -> bool:
        """Trials, then the report split; False if the user interrupted them."""
        from orchestrator.runner import run_trials

        sweep = self._sweep(ledger, display, tracker)
        first = _best(self.run, "em_acc")
        best = (first.metrics["em_acc"], first.label) if first else None
        display.start(self.config.search.trials, ledger.count(*_DONE), best=best)
        if not run_trials(sweep):
            return False
        if sweep.agenda.end_reason:
            display.message(sweep.agenda.end_reason)
        self._score_reports(sweep, display, tracker)
        return True

    def _sweep(self, ledger: Ledger, display: Any, tracker: Any) -> Any:
        """Everything that a running sweep consists of; its hosts are up."""
        from orchestrator.agenda import Agenda
        from orchestrator.cluster import open_hosts
        from orchestrator.provenance import driver_provenance
        from orchestrator.runner import Sweep
        from orchestrator.search import Search
        from orchestrator.watchers import DisplayWatcher, TrackerWatcher

        provenance, trials = driver_provenance(), self.config.search.trials
        cluster = open_hosts(
            self.config.resources, trials=trials, provenance=provenance, say=display.message
        )
        self.planner.device = cluster.device
        ledger.provenance = provenance | {key: str(value) for key, value in cluster.device.items()}

        def rejected(record: TrialRecord) -> None:
            display.message(f"Rejected {record.trial_id}: {record.reason}")

        search = Search(self.config, known_trials=len(ledger.records))
        return Sweep(
            config=self.config,
            agenda=Agenda(planner=self.planner, search=search, ledger=ledger, on_rejected=rejected),
            ledger=ledger,
            cluster=cluster,
            watchers=[DisplayWatcher(display), TrackerWatcher(tracker)],
        )

    def _score_reports(self, sweep: Any, display: Any, tracker: Any) -> None:
        """The report split; the sweep has ended only if all that is due on it was scored."""
        from orchestrator.mirror import finish_trial
        from orchestrator.runner import score_reports

        display.message("Scoring the report split ...")
        due = _worth_reporting(self.run, sweep.ledger, self.config.objective)
        for record in score_reports(sweep, due, say=display.message):
            finish_trial(tracker, record.folder)
        remember(self.run, guesses=self._guesses())
        if all(record.folder.report_score() for record in due) and not sweep.agenda.gave_up:
            done = sweep.ledger.count(*_DONE)
            remember(self.run, trials_done=done, exhausted=sweep.agenda.exhausted)

    def _guesses(self) -> dict[str, float]:
        """How far one gets on the report split without a model."""
        from trainables.tasks import make_task
        from trainables.tasks.guesses import guesses

        configuration = next(self.planner.cell_configurations())
        task = make_task(self.config.task, self.planner.task_options(configuration))
        return guesses(task, task.load("report"))

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
        self._close_tracker(tracker, outcome)

    def _open_tracker(self, display: Any) -> Any:
        """A mirror in MLflow that never waits, with what earlier starts could not tell it."""
        from orchestrator.mirror import mirror
        from orchestrator.mlflow_tracker import MLflowTracker
        from orchestrator.tracking import BackgroundTracker, SweepIdentity

        tracker = BackgroundTracker(MLflowTracker(self._uri), warn=display.message)
        config = to_mapping(self.config)
        names = ("task", "objective", "budget", "search", "scheduler")
        params = {name: config[name] for name in names}
        sweep_id = str(read_state(self.run)["sweep_id"])
        tracker.open(SweepIdentity(sweep_id, self.run.path.name, params=params))
        mirror(self.run, tracker)
        return tracker

    def _close_tracker(self, tracker: Any, outcome: Outcome) -> None:
        run = self.run
        files = (run.report_file, run.results_file, run.pareto_file, run.sweep_file)
        tracker.close(
            state="interrupted" if outcome == "interrupted" else "finished",
            metrics=_best_metrics(run, self.config.objective),
            artifacts=[file for file in files if file.exists()],
        )
        remember(run, tracked_in=None if tracker.incomplete else redact(self._uri))

    def _complete_tracking(self) -> None:
        """A sweep that has ended is given to a tracker that has missed some of it."""
        from orchestrator.terminal import SweepDisplay

        if read_state(self.run).get("tracked_in") != redact(self._uri):
            tracker = self._open_tracker(SweepDisplay())
            self._close_tracker(tracker, "finished")

    @property
    def _uri(self) -> str:
        from orchestrator.mlflow_tracker import default_uri

        return self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(self.run)

    def _report(self) -> Report:
        from orchestrator.report import write_report

        return write_report(self.run, is_driven=False)


def _finish_in(tracker: Any, record: TrialRecord) -> None:
    from orchestrator.mirror import finish_trial, start_trial

    start_trial(tracker, record.folder)
    finish_trial(tracker, record.folder)


def _worth_reporting(run: RunFolder, ledger: Ledger, metric: str) -> list[TrialRecord]:
    """The winner and the Pareto points: the only trained trials that see the report split."""
    from orchestrator.pareto import front

    results = read_trials(run)
    chosen = {item.trial_id: item for item in [*ranked(results, metric)[:1], *front(results)]}
    return [ledger.records[trial_id] for trial_id in chosen]


def _best(run: RunFolder, metric: str) -> TrialResult | None:
    """The best finished trial, as the report ranks them."""
    return next(iter(ranked(read_trials(run), metric)), None)


def _best_metrics(run: RunFolder, metric: str) -> dict[str, float]:
    best = _best(run, metric)
    metrics = best.metrics if best else {}
    return {f"best_{name}": metrics[name] for name in _OF_THE_BEST if name in metrics}
