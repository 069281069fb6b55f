"""A sweep while it runs: its queue, its hosts, and who is told of what happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from orchestrator.cluster.session import Cluster
from orchestrator.config.objectives import objectives_of
from orchestrator.config.sections import SweepConfig
from orchestrator.execution.limits import SweepClock
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.search.schedulers import rung_results
from orchestrator.search.trial_queue import TrialQueue
from orchestrator.space.constraints import surviving
from trainables.spec.events import Event
from trainables.spec.knobs import base_knobs


class SweepObserver(Protocol):
    """Whoever follows a sweep: told of each trial's start, events and end, in order."""

    def trial_started(self, record: TrialRecord) -> None: ...

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...


@dataclass
class Sweep:
    """All that a running sweep consists of."""

    config: SweepConfig
    trial_queue: TrialQueue
    ledger: Ledger
    cluster: Cluster
    watchers: Sequence[SweepObserver]
    clock: SweepClock
    resume_command: str = ""
    notify: Callable[[str], None] = print


def look_ahead(sweep: Sweep) -> int:
    """How many trials wait in line, so that a host that comes free finds one with its base.

    None where all trials share one base: then each suggestion is best made as late as it can be.
    """
    bases = surviving(sweep.config.space, sweep.config.exclude, ["model", *base_knobs()])
    return max(2, sweep.cluster.shape.count // 2) if len(list(islice(bases, 2))) > 1 else 0


def stratum(config: SweepConfig, record: TrialRecord) -> str | None:
    """Which trials this one is compared with by the scheduler; None for a baseline."""
    if not record.is_trial:
        return None
    return "/".join(str(record.spec.knobs.get(knob)) for knob in config.scheduler.within)


def replay_events(
    scheduler: Any, config: SweepConfig, record: TrialRecord, history: Sequence[Event]
) -> None:
    """Tells the scheduler of rungs that it has not seen; baselines are compared with nothing."""
    compared_in = stratum(config, record)
    results = rung_results(history, objectives_of(config)[0])
    if compared_in is not None and results:
        scheduler.replay(record.trial_id, compared_in, results)
