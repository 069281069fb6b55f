"""SweepTracking: the MLflow mirror of one run, from its opening to the end of the sweep."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.runs.state import read_state, remember
from orchestrator.tracking.tracker import redact
from trainables.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from orchestrator.tracking.background import BackgroundTracker


@dataclass(frozen=True)
class SweepTracking:
    """Opens and closes the tracker of a run; `given_uri` is the user's, None for the default."""

    run: RunFolder
    given_uri: str | None

    @property
    def uri(self) -> str:
        """The MLflow store: the given one, that of the environment, or the run folder's own."""
        given = self.given_uri or os.environ.get("MLFLOW_TRACKING_URI")
        return given or self.run.tracking_uri

    def open(self, warn: Callable[[str], None], *, delayed: bool = False) -> BackgroundTracker:
        """A tracker that never waits, with all that earlier starts could not send queued for it.

        `delayed`: it makes no call before its `begin`, and imports MLflow only then.
        """
        from orchestrator.tracking.background import BackgroundTracker
        from orchestrator.tracking.guarded import LeaseGuardedTracker
        from orchestrator.tracking.mlflow_tracker import MLflowTracker
        from orchestrator.tracking.sync import mirror_later, sweep_identity

        remember(self.run, tracked_in=None)  # until the tracker holds everything again
        guarded = LeaseGuardedTracker(MLflowTracker(self.uri), guard=self.run.guard)
        tracker = BackgroundTracker(guarded, warn=warn, delayed=delayed)
        tracker.open(sweep_identity(self.run))
        mirror_later(self.run, tracker, is_driven=True)
        return tracker

    def close(self, tracker: BackgroundTracker, *, interrupted: bool) -> None:
        """Sends what the tracker lacks, the states of unfinished trials and the sweep's end."""
        from orchestrator.tracking.sync import end_sweep, mirror_later

        mirror_later(self.run, tracker, is_driven=False)
        end_sweep(self.run, tracker, state="interrupted" if interrupted else "finished")
        remember(self.run, tracked_in=None if tracker.incomplete else redact(self.uri))

    def complete(self, warn: Callable[[str], None]) -> None:
        """Sends a finished sweep to its tracker if the tracker lacks any of it."""
        from orchestrator.tracking.sqlite_store import is_lost

        if read_state(self.run).get("tracked_in") != redact(self.uri) or is_lost(self.uri):
            self.refuse_shared_sqlite()
            self.close(self.open(warn), interrupted=False)

    def refuse_shared_sqlite(self, *, shared_folder: Path | None = None) -> None:
        """Raises InputError if the store is a SQLite file on storage that nodes share."""
        from orchestrator.tracking.sqlite_store import refuse_shared_sqlite

        refuse_shared_sqlite(self.uri, shared_folder=shared_folder)
