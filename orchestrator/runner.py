"""Runs a planned sweep through Ray Tune: trials, then the report split for those that earned it.

Tune schedules light proxies (proxy.py); the Agenda says what runs next, the Ledger keeps what came
of it, and each event is passed on to whoever watches (display, tracker).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.cluster.devices import Need
from orchestrator.cluster.nodes import host_gone
from orchestrator.cluster.session import Cluster, HostsLeft
from orchestrator.config.objectives import OBJECTIVES
from orchestrator.config.sections import SweepConfig
from orchestrator.interrupts import NotedSignals
from orchestrator.limits import SweepClock, out_of_hours, trial_limits
from orchestrator.proxy import TrialProxy
from orchestrator.runs.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.search.schedulers import SCHEDULERS, judged
from orchestrator.search.trial_queue import Agenda
from orchestrator.silence import SilentError, answer
from orchestrator.space.constraints import surviving
from trainables.spec.events import Event
from trainables.spec.states import INTERRUPTED
from trainables.storage.errors import StorageError, storage_error_in
from trainables.workers.outcomes import LOADING_TAKES, Failure

OF_A_BASE = ("model", "quantization", "double_quantization", "compute_dtype")


class Watcher(Protocol):
    """Whoever follows a sweep: told of each trial's start, events and end, in order."""

    def trial_started(self, record: TrialRecord) -> None: ...

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...


@dataclass
class Sweep:
    """All that a running sweep consists of."""

    config: SweepConfig
    agenda: Agenda
    ledger: Ledger
    cluster: Cluster
    watchers: Sequence[Watcher]
    clock: SweepClock
    resume_command: str = ""
    say: Callable[[str], None] = print


def run_trials(sweep: Sweep, *, signals: NotedSignals) -> bool:
    """Runs trials until the agenda is over; False if the user interrupted it, or has already.

    Interrupted (Ctrl-C), running trials save a checkpoint and end; interrupted once more, this
    raises InterruptedAgain at once.
    """
    _quiet_tune()
    scheduler = _scheduler(sweep)
    scratch = tempfile.mkdtemp(prefix="sweep-tune-")
    _fit(sweep, scheduler, SweepCallback(sweep, scheduler, signals=signals), scratch)
    return sweep.agenda.over and not signals.asked


def _fit(sweep: Sweep, scheduler: Any, callback: SweepCallback, scratch: str) -> None:
    try:
        tune.Tuner(
            tune.with_resources(TrialProxy, _next_to_no_resources()),
            tune_config=tune.TuneConfig(
                search_alg=AgendaSearcher(sweep, look=callback.look),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=sweep.cluster.most_trials + look_ahead(sweep),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.config["trial_id"],
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="tune",
                verbose=0,
                callbacks=[callback],
            ),
        ).fit()
    except tune.TuneError as error:
        raise (storage_error_in(error) or error) from error  # Tune wraps what its callbacks raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def look_ahead(sweep: Sweep) -> int:
    """How many trials wait in line, so that a host that comes free finds one with its base.

    None where all trials share one base: then each suggestion is best made as late as it can be.
    """
    bases = surviving(sweep.config.space, sweep.config.exclude, OF_A_BASE)
    return max(2, sweep.cluster.shape.count // 2) if len(list(islice(bases, 2))) > 1 else 0


def score_reports(
    sweep: Sweep, records: Sequence[TrialRecord], *, say: Callable[[str], None]
) -> list[TrialRecord]:
    """Scores finished trials on the report split, once each; returns those that were scored.

    One that fails is said to, and is tried again at the sweep's next start.
    """
    waiting = [record for record in records if record.folder.report_score() is None]
    waiting.sort(key=lambda record: record.spec.base_key)  # hosts seldom change theirs then
    ray.get(sweep.cluster.admission.reopen.remote())
    pool = ThreadPoolExecutor(max_workers=sweep.cluster.shape.count)
    try:
        failures = list(pool.map(lambda record: _score_report(sweep, record), waiting))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C must not wait for the rest
    for record, failure in zip(waiting, failures, strict=True):
        if failure:
            say(f"warning: trial {record.trial_id} was not scored on the report split: {failure}")
    return [record for record, why in zip(waiting, failures, strict=True) if not why]


def stratum(config: SweepConfig, record: TrialRecord) -> str | None:
    """Which trials this one is compared with by the scheduler; None for a baseline."""
    if not record.is_trial:
        return None
    return "/".join(str(record.spec.knobs.get(knob)) for knob in config.scheduler.within)


class AgendaSearcher(Searcher):  # type: ignore[misc]  # Ray carries no types
    """Tune's view of the Agenda."""

    def __init__(self, sweep: Sweep, *, look: Callable[[], None] = lambda: None) -> None:
        super().__init__(metric="objective", mode="max")
        self._sweep = sweep
        self._look = look  # while Tune has no trial at all it asks for one, and for nothing else
        self._ahead = look_ahead(sweep)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into snapshots that are never read

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self._look()
        sweep = self._sweep
        record = sweep.agenda.next() if self._has_room() else None
        if record is None:
            return str(Searcher.FINISHED) if sweep.agenda.over else None
        for watcher in sweep.watchers:
            watcher.trial_started(record)
        return {
            "trial_id": record.trial_id,
            "folder": record.folder.place,
            "base_key": record.spec.base_key,
            "stratum": stratum(sweep.config, record),
            "admission": sweep.cluster.name,
            "objective": sweep.config.objective,
            "limits": trial_limits(sweep.config.limits),
            "exclusive": sweep.config.resources.placement == "exclusive",
        }

    def _has_room(self) -> bool:
        """Where trials share GPUs, how many fit depends on which: one at a time is tried."""
        cluster = self._sweep.cluster
        if cluster.sharing.hosts_per_gpu == 1:
            return True
        running: int = ray.get(cluster.admission.running.remote())
        wanted = max(cluster.shape.count, running + 1) + self._ahead
        return self._sweep.ledger.count(RUNNING) < wanted

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """SweepCallback has seen to it already."""

    def save(self, checkpoint_path: str) -> None:
        """The trial directories are the truth; Tune's snapshots are never read."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class SweepCallback(tune.Callback):  # type: ignore[misc]
    """Takes each result into the ledger and passes it on to the agenda and the watchers."""

    def __init__(
        self,
        sweep: Sweep,
        scheduler: Any,
        *,
        signals: NotedSignals | None = None,
    ) -> None:
        self._sweep = sweep
        self._scheduler = scheduler
        self._signals = signals or NotedSignals()
        self._ended_early = False
        self._hosts_left = HostsLeft(sweep.cluster, sweep.say)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see AgendaSearcher

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Several times a second."""
        self.look()

    def look(self) -> None:
        """Is it time to end?"""
        sweep = self._sweep
        sweep.clock.tick()
        self._hosts_left.look()
        if self._ended_early:
            return
        if self._signals.asked:
            self._end("interrupted")
            sweep.say("Interrupted: running trials save a checkpoint. Again to leave at once.")
        elif sweep.clock.used_up:
            self._end(out_of_hours(sweep.config.limits, resume_command=sweep.resume_command))

    def _end(self, reason: str) -> None:
        self._ended_early = True
        self._sweep.agenda.end(reason)
        self._sweep.cluster.admission.interrupt.remote()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        record = self._record(trial)
        if _has_written(result):
            record.folder.pull()
        if result.get("failure"):
            self._fail(record, result["failure"])
            return
        if result.get("interrupted"):
            self._sweep.ledger.interrupted(record)
            return
        if "history" in result:  # it comes alone, before any event
            self._catch_up(record, [Event.from_json(event) for event in result["history"]])
            return
        self._take(record, [Event.from_json(result["event"])])
        if result.get("stopped"):
            self._sweep.ledger.stopped(record, result["stopped"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        if record.state == RUNNING:
            self._sweep.ledger.stopped(record)
            _free_host(trial)
        self._ended(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        self._sweep.ledger.failed(record, f"the trial's proxy broke: {trial.error_file}")
        self._sweep.cluster.admission.replace.remote(record.trial_id)  # it may still compute there
        self._ended(record)

    def _catch_up(self, record: TrialRecord, history: Sequence[Event]) -> None:
        """A trial goes on from a checkpoint: what it had reported until then counts again."""
        record.history = []
        _replay(self._scheduler, self._sweep.config, record, history)
        self._take(record, history)

    def _take(self, record: TrialRecord, events: Sequence[Event]) -> None:
        record.history += events
        for event in events:
            if event.kind == "rung":
                self._sweep.agenda.rung(record, event)
        if events and events[-1].kind == "finished":
            self._sweep.ledger.finished(record)
        for watcher in self._sweep.watchers:
            watcher.trial_events(record, events)

    def _fail(self, record: TrialRecord, failure: Mapping[str, Any]) -> None:
        ledger = self._sweep.ledger
        if failure["storage"]:  # it would be every trial's fate, one after another
            with suppress(StorageError):
                ledger.interrupted(record)
            raise StorageError(failure["reason"])
        end = ledger.infeasible if failure["infeasible"] else ledger.failed
        end(record, failure["reason"])

    def _ended(self, record: TrialRecord) -> None:
        if record.state != INTERRUPTED:
            self._sweep.agenda.ended(record)
        for watcher in self._sweep.watchers:
            watcher.trial_ended(record)

    def _record(self, trial: Any) -> TrialRecord:
        return self._sweep.ledger.records[trial.config["trial_id"]]


def _free_host(trial: Any) -> None:
    """Of a trial that the scheduler has stopped: Tune keeps its proxy for a next trial, which may
    never come, while others wait for the host."""
    proxy = trial.temporary_state.ray_actor
    if proxy is not None:
        proxy.leave.remote()


def _has_written(result: Mapping[str, Any]) -> bool:
    """Whether a host has written what the driver reads: a rung's answers, a summary, its log."""
    kind = result["event"]["kind"] if "event" in result else ""
    return bool(result.get("failure") or result.get("interrupted")) or kind in ("rung", "finished")


def _score_report(sweep: Sweep, record: TrialRecord) -> str:
    """Scores one trial on any host; returns why it failed, or nothing."""
    place, admission = f"{record.trial_id}/report", sweep.cluster.admission
    silent = trial_limits(sweep.config.limits)["silent_seconds"]
    allowed = None if silent is None else silent * LOADING_TAKES
    need = Need.of(record.folder.prediction())
    host = ray.get(admission.acquire.remote(place, record.spec.base_key, need))
    gone: tuple[type[Exception], ...] = (*host_gone(), SilentError)
    try:
        call = host.score_report.remote(record.folder.place, silent)
        score = answer(call, record.folder, silent_seconds=allowed)
    except gone as error:
        ray.get(admission.replace.remote(place))
        return f"its host died or hung ({type(error).__name__})"
    finally:
        ray.get(admission.release.remote(place))
    record.folder.pull()
    return score.reason if isinstance(score, Failure) else ""


def _scheduler(sweep: Sweep) -> Any:
    """The space's scheduler, with what earlier runs of this sweep told it."""
    config = sweep.config
    scheduler = SCHEDULERS[config.scheduler.kind](config.scheduler, config.budget.train_examples)
    for record in sweep.ledger:
        _replay(scheduler, config, record, record.history)
    return scheduler


def _replay(
    scheduler: Any, config: SweepConfig, record: TrialRecord, history: Sequence[Event]
) -> None:
    """Tells the scheduler of rungs that it has not seen; baselines are compared with nothing."""
    compared_in = stratum(config, record)
    results = judged(history, OBJECTIVES[config.objective])
    if compared_in is not None and results:
        scheduler.replay(record.trial_id, compared_in, results)


def _next_to_no_resources() -> tune.PlacementGroupFactory:
    """Proxies stay on the head node and leave every CPU and GPU to the hosts."""
    return tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])


def _quiet_tune() -> None:
    """Our own display, files and checks of results stand in for Tune's."""
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE.clear()  # AWS secrets among them, and Ray logs what it gets
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see interrupts.py
    os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = "30"
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
