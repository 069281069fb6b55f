"""A sweep while it runs: its queue, its hosts and its observers."""

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
    """Receives the start, the events and the end of each trial, in order."""

    def trial_started(self, record: TrialRecord) -> None: ...

    def trial_events(self, record: TrialRecord, events: Sequence[Event]) -> None: ...

    def trial_ended(self, record: TrialRecord) -> None: ...


@dataclass
class Sweep:
    """All that a running sweep consists of.

    `is_training` is set with the first event of a trial: from then on a host computes.
    `repeated_failure` is what is said once trials have failed one after another of one fault.
    """

    config: SweepConfig
    trial_queue: TrialQueue
    ledger: Ledger
    cluster: Cluster
    watchers: Sequence[SweepObserver]
    clock: SweepClock
    resume_command: str = ""
    notify: Callable[[str], None] = print
    is_training: bool = False
    repeated_failure: str = ""


def look_ahead(sweep: Sweep) -> int:
    """Returns how many trials wait for a host, so that a host that is free finds one of its base.

    0 if all trials share one base: then each suggestion is best made as late as possible.
    """
    bases = surviving(sweep.config.space, sweep.config.exclude, ["model", *base_knobs()])
    return max(2, sweep.cluster.shape.count // 2) if len(list(islice(bases, 2))) > 1 else 0


def stratum(config: SweepConfig, record: TrialRecord) -> str | None:
    """Returns the group of trials that the scheduler compares this with; None for a baseline."""
    if not record.is_trial:
        return None
    return "/".join(str(record.spec.knobs.get(knob)) for knob in config.scheduler.within)


def replay_events(
    scheduler: Any, config: SweepConfig, record: TrialRecord, history: Sequence[Event]
) -> None:
    """Passes the rungs of a trial's history to the scheduler; a baseline is compared with none."""
    compared_in = stratum(config, record)
    results = rung_results(history, objectives_of(config)[0])
    if compared_in is not None and results:
        scheduler.replay(record.trial_id, compared_in, results)
