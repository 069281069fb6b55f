"""The searcher that Tune asks for its next trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.tune.search import Searcher

from orchestrator.execution.limits import trial_limits
from orchestrator.execution.running_sweep import Sweep, look_ahead, stratum
from orchestrator.runs.ledger import RUNNING


class QueueSearcher(Searcher):  # type: ignore[misc]  # Ray carries no types
    """Tune's view of the Agenda."""

    def __init__(self, sweep: Sweep, *, poll: Callable[[], None] = lambda: None) -> None:
        super().__init__(metric="objective", mode="max")
        self._sweep = sweep
        self._look = poll  # while Tune has no trial at all it asks for one, and for nothing else
        self._ahead = look_ahead(sweep)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it into snapshots that are never read

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        self._look()
        sweep = self._sweep
        record = sweep.trial_queue.next() if self._has_room() else None
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
            "objective": sweep.config.objective,
            "limits": trial_limits(sweep.config.limits),
            "exclusive": sweep.config.resources.placement == "exclusive",
        }

    def _has_room(self) -> bool:
        """Where trials share GPUs, how many fit depends on which: one at a time is tried."""
        cluster = self._sweep.cluster
        if cluster.sharing.hosts_per_gpu == 1:
            return True
        running: int = ray.get(cluster.host_scheduler.running.remote())
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
