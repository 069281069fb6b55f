"""The searcher that Tune asks for its next trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune.search import Searcher

from orchestrator.execution.limits import trial_limits
from orchestrator.execution.running_sweep import Sweep, look_ahead, stratum
from orchestrator.runs.ledger import RUNNING, TrialRecord

POLL_SECONDS = 0.01
FORECAST_SECONDS = 0.1  # after which Tune, which has other trials, may handle their events
FIRST_FORECAST_SECONDS = 10.0  # without any trial Tune sleeps for a second before it asks again


class QueueSearcher(Searcher):  # type: ignore[misc]  # Ray carries no types
    """Gives Tune the trials of the sweep's queue.

    `poll` is called with each request: without trials Tune calls nothing else.
    """

    def __init__(self, sweep: Sweep, *, poll: Callable[[], None] = lambda: None) -> None:
        super().__init__(metric="objective", mode="max")
        self._sweep = sweep
        self._poll = poll
        self._ahead = look_ahead(sweep)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles the searcher into snapshots that are never read

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        sweep, record = self._sweep, self._next()
        if record is None:
            return str(Searcher.FINISHED) if sweep.trial_queue.over else None
        for watcher in sweep.watchers:
            watcher.trial_started(record)
        return {
            "trial_id": record.trial_id,
            "folder": record.folder.place,
            "base_key": record.spec.base_key,
            "stratum": stratum(sweep.config, record),
            "host_scheduler": sweep.cluster.name,
            "task": sweep.config.task,
            "data": dict(sweep.config.data),
            "objective": sweep.config.objective,
            "limits": trial_limits(sweep.config.limits),
            "exclusive": sweep.config.resources.placement == "exclusive",
        }

    def _next(self) -> TrialRecord | None:
        """Returns the next trial or None; an idle host waits a little for the forecast of one.

        Tune asks again after 0.1 s, and only after a second if it has no trial.
        """
        queue, began = self._sweep.trial_queue, time.monotonic()
        while True:
            self._poll()
            running = self._sweep.ledger.count(RUNNING)
            idle = running < self._sweep.cluster.shape.count
            record = queue.next(host_is_idle=idle) if self._has_room(running) else None
            allowed = FORECAST_SECONDS if running else FIRST_FORECAST_SECONDS
            if record or not (idle and queue.waits_for_forecast):
                return record
            if time.monotonic() - began > allowed:
                return None
            time.sleep(POLL_SECONDS)

    def _has_room(self, running: int) -> bool:
        """Whether one more trial may wait for a host beside those that run or wait.

        Before a host computes, each host gets one trial: further ones would take the CPU that the
        first need to start. Where trials share GPUs, it depends on the trials how many fit, so
        one more than those that have a host is tried at a time.
        """
        cluster = self._sweep.cluster
        if not self._sweep.is_training:
            return running < cluster.shape.count
        if cluster.sharing.hosts_per_gpu == 1:
            return True  # Tune limits their number itself
        placed: int = ray.get(cluster.host_scheduler.running.remote())
        return running < max(cluster.shape.count, placed + 1) + self._ahead

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: SweepCallback handles the end of a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trial folders are the truth, and Tune's snapshots are never read."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""
