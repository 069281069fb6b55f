"""Driver: one start of a sweep, from the state of its folder to the report.

The run folder decides what is left to do; nothing else is carried over from an earlier start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from orchestrator.config.sections import SweepConfig
from orchestrator.execution.limits import SweepClock, out_of_hours
from orchestrator.execution.signals import DeferredSignals, SecondInterrupt
from orchestrator.execution.sweep_setup import SweepSetup
from orchestrator.execution.sweep_tracking import SweepTracking
from orchestrator.planning.planner import Planner
from orchestrator.runs.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.runs.progress import done_text
from orchestrator.runs.results import read_labels, read_trials
from orchestrator.runs.state import hours_are_over, read_state, remember, unbind
from orchestrator.runs.sweep_metrics import SweepMetrics, sweep_metrics
from orchestrator.runs.trial_result import ranked
from trainables.errors import InputError
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, STOPPED
from trainables.storage.errors import StorageError
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.execution.display import SweepDisplay
    from orchestrator.execution.observers import LabelOf
    from orchestrator.execution.running_sweep import Sweep, SweepObserver
    from orchestrator.reporting.document import Report
    from orchestrator.tracking.background import BackgroundTracker

Outcome = Literal["finished", "nothing", "interrupted"]
GONE_SECONDS = 3.0  # between two looks after a signal at whether Ray is there
_DONE = (FINISHED, STOPPED, FAILED)


@dataclass
class Driver:
    """Runs a sweep in its run folder, or shows one that has ended.

    `address` is Ray's, None for a cluster of this machine; `python` is `ForkedPython.python`.
    """

    run: RunFolder
    config: SweepConfig
    planner: Planner
    address: str | None
    tracking_uri: str | None
    resume_command: str
    predicts: bool = True
    python: tuple[str, ...] = ()
    _setup: SweepSetup | None = field(default=None, init=False)
    _signals: DeferredSignals = field(default_factory=DeferredSignals, init=False)
    _repeated_failure: str = field(default="", init=False)

    def show(self) -> Outcome:
        """Prints the report of a sweep that has ended and sends its tracker what that lacks."""
        from orchestrator.execution.display import SweepDisplay

        self._tracking.complete(SweepDisplay(self._metrics.primary).message)
        self._report().print()
        self._print_out_of_hours()
        return self._outcome(Ledger(self.run))

    def run_all(self, *, retry_failed: bool) -> Outcome:
        """Runs what is left to run and writes the report; needs the lease and a settled folder."""
        from orchestrator.cluster.session import stop_ray
        from orchestrator.execution.display import SweepDisplay
        from orchestrator.tracking.mlflow_store import tracking_command

        remember(self.run, resume_command=self.resume_command)
        clock = SweepClock(self.run, self.config.limits)
        display = SweepDisplay(self._metrics.primary)
        ledger = self._ledger(display, retry_failed=retry_failed)
        setup = self._start_setup(display)
        self._start_ray(ledger, display)
        tracker = self._tracking.open(display.message, delayed=True)
        outcome: Outcome = "interrupted"
        at_once = is_refused = False
        try:
            if self._run_on_cluster(ledger, display, tracker, clock):
                outcome = self._outcome(ledger)
        except KeyboardInterrupt as error:
            at_once = isinstance(error, SecondInterrupt)
        except Exception as error:
            is_refused = isinstance(error, InputError) and not ledger.records
            if not self._signals.asked or isinstance(error, InputError | StorageError):
                raise  # else a cluster of others, whose processes got the signal as well
        finally:
            display.stop()
            setup.close()
            clock.save()
            with self._signals.leave_if_stuck(lambda: self._leave(ledger, display)):
                stop_ray()
            ledger.discard_leftovers()
            if is_refused:
                unbind(self.run)  # what was refused is mended and the same command run again
            else:
                self._close(ledger, tracker, outcome, at_once=at_once)
        print(f"MLflow: {tracking_command(self._tracking.uri)}")
        return outcome

    def _ledger(self, display: SweepDisplay, *, retry_failed: bool) -> Ledger:
        """The known trials; those that may end otherwise this time are marked to run again."""
        ledger = Ledger(self.run)
        for warning in ledger.warnings:
            display.message(f"warning: {warning}")
        again = (FAILED, INFEASIBLE) if retry_failed else (INFEASIBLE,)  # the hardware may differ
        for record in ledger.with_state(*again):
            ledger.run_again(record)
        if ledger.records:
            done = ledger.count(*_DONE)
            display.message(f"Resuming: {done_text(done, self.config.search.trials)}.")
        return ledger

    def _start_setup(self, display: SweepDisplay) -> SweepSetup:
        self._setup = SweepSetup(
            self.run,
            self.planner,
            self.python,
            notify=display.message,
            note=display.note,
            predicts=self.predicts,
        )
        self._setup.start_simulator()
        return self._setup

    def _start_ray(self, ledger: Ledger, display: SweepDisplay) -> None:
        """Starts or joins Ray and checks that all nodes can use the storage."""
        from orchestrator.cluster.session import needs_dashboard, start_ray
        from orchestrator.cluster.storage_check import check_storage

        display.message("Starting Ray and its hosts ...")
        stuck = self._signals.leave_if_stuck(lambda: self._leave(ledger, display))
        with self._signals, stuck:
            try:
                dashboard = needs_dashboard(self.config)
                start_ray(self.address, dashboard=dashboard, notify=display.message)
            finally:  # an interrupted start may end in an error
                self._signals.take()  # Ray has put a handler of its own in place
                self._signals.check()
            is_shared = check_storage(self.run.storage)
            shared_folder = self.run.path.parent if is_shared else None
            self._tracking.refuse_shared_sqlite(shared_folder=shared_folder)

    def _run_on_cluster(
        self,
        ledger: Ledger,
        display: SweepDisplay,
        tracker: BackgroundTracker,
        clock: SweepClock,
    ) -> bool:
        """Runs the trials, then scores the report split; False if the user interrupted them."""
        import ray

        from orchestrator.cluster.joined_cluster import cluster_is_gone

        assert self._setup is not None
        is_gone = partial(cluster_is_gone, ray.get_runtime_context().gcs_address)
        first = next(iter(ranked(read_trials(self.run), self._metrics.primary)), None)
        best = (first.metrics[first.primary.name], first.label) if first else None
        with (
            self._signals,
            self._signals.leave_if_stuck(
                lambda: self._leave(ledger, display), every=GONE_SECONDS, is_stuck=is_gone
            ),
        ):
            sweep = self._setup.build(
                ledger,
                watchers=_watchers(display, tracker, self._label_of(ledger)),
                clock=clock,
                resume_command=self.resume_command,
                check=self._signals.check,
            )
            from orchestrator.execution.tune_loop import run_trials

            display.start(self.config.search.trials, ledger.count(*_DONE), best=best)
            if not run_trials(sweep, signals=self._signals):
                return False
        self._repeated_failure = sweep.repeated_failure
        if sweep.trial_queue.end_reason and not sweep.repeated_failure:
            display.message(sweep.trial_queue.end_reason)
        self._score_reports(sweep, display)
        return True

    def _label_of(self, ledger: Ledger) -> LabelOf:
        """The labels of trials, told in the order in which these were planned."""
        labels = read_labels(self.run)

        def label_of(record: TrialRecord) -> str:
            if not labels.told(record.trial_id):
                for each in list(ledger):
                    labels.of(each.trial_id, each.spec.knobs)
            return labels.told(record.trial_id)

        return label_of

    def _score_reports(self, sweep: Sweep, display: SweepDisplay) -> None:
        """Scores the report split; the sweep has ended only if all that is due was scored, but for
        what can't be."""
        from orchestrator.execution.report_split import (
            score_reports,
            worth_keeping,
            worth_reporting,
        )
        from orchestrator.runs.cleanup import discard_dominated_models

        display.message("Scoring the report split ...")
        results = read_trials(self.run)
        chosen = worth_reporting(results, self._metrics.ranking)
        due = [sweep.ledger.records[trial_id] for trial_id in chosen]
        unscored = score_reports(sweep, due, notify=display.message)
        removed = discard_dominated_models(self.run, keep=worth_keeping(results, chosen))
        if removed is not None:
            display.message(removed)
        early = sweep.trial_queue.ended_early and sweep.clock.used_up
        remember(self.run, guesses=self._trivial_baselines(), out_of_hours=early, unscored=unscored)
        waiting = [record for record in due if record.trial_id not in unscored]
        is_scored = all(record.folder.report_score() for record in waiting)
        if is_scored and not sweep.trial_queue.gave_up:
            done = sweep.ledger.count(*_DONE)
            remember(self.run, trials_done=done, exhausted=sweep.trial_queue.exhausted)

    def _trivial_baselines(self) -> dict[str, float]:
        """The metrics that one reaches on the report split without a model."""
        from trainables.tasks.registry import make_task

        configuration = next(self.planner.cell_configurations())
        task = make_task(self.config.task, self.planner.task_options(configuration))
        return task.trivial_baselines(task.load("report"))

    def _outcome(self, ledger: Ledger) -> Outcome:
        return "finished" if ledger.count(FINISHED) else "nothing"

    def _close(
        self, ledger: Ledger, tracker: BackgroundTracker, outcome: Outcome, *, at_once: bool
    ) -> None:
        """Writes the report and completes the tracker; `at_once` leaves both to the next start."""
        if outcome == "interrupted":
            for record in ledger.with_state(RUNNING):
                ledger.interrupted(record)
            self._say_interrupted(ledger)
        if at_once:
            return
        report = self._report()
        if outcome != "interrupted":
            report.print()
            self._print_out_of_hours()
            if self._repeated_failure:
                print(self._repeated_failure)
        self._tracking.close(tracker, interrupted=outcome == "interrupted")
        self._export_study()

    def _leave(self, ledger: Ledger, display: SweepDisplay) -> None:
        """The last words of a process that waits for a Ray that does not answer."""
        display.stop()
        self._say_interrupted(ledger)

    def _say_interrupted(self, ledger: Ledger) -> None:
        done = done_text(ledger.count(*_DONE), self.config.search.trials)
        print(f"Interrupted: {done}. Resume with: {self.resume_command}", flush=True)

    def _export_study(self) -> None:
        """Writes the study for optuna-dashboard, if there is one; the sweep never reads it."""
        if self._setup is not None and self._setup.search is not None:
            database = self._setup.search.database(self.run.path.name)
            self.run.write_bytes(self.run.study_file, database)

    def _print_out_of_hours(self) -> None:
        if hours_are_over(read_state(self.run), self.config.limits):
            print(out_of_hours(self.config.limits, resume_command=self.resume_command))

    @property
    def _metrics(self) -> SweepMetrics:
        config = self.config
        return sweep_metrics(
            {"task": config.task, "data": config.data, "objective": config.objective}
        )

    @property
    def _tracking(self) -> SweepTracking:
        return SweepTracking(self.run, self.tracking_uri)

    def _report(self) -> Report:
        from orchestrator.reporting.builder import write_report

        return write_report(self.run, is_driven=False)


def _watchers(
    display: SweepDisplay, tracker: BackgroundTracker, label_of: LabelOf
) -> list[SweepObserver]:
    from orchestrator.execution.observers import DisplayWatcher, TrackerWatcher

    return [DisplayWatcher(display, label_of), TrackerWatcher(tracker, label_of)]
