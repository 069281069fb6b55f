"""Scores the winner, the Pareto points and the baselines on the report split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import ray
from ray.exceptions import OutOfMemoryError

from orchestrator.cluster.hosts.devices import ResourceRequest
from orchestrator.cluster.nodes import host_gone
from orchestrator.execution.limits import trial_limits
from orchestrator.execution.liveness import HostUnresponsiveError, wait_for
from orchestrator.execution.running_sweep import Sweep
from orchestrator.runs.ledger import TrialRecord
from orchestrator.runs.progress import not_scored
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.spec.knobs import needs_ranks
from trainables.spec.metric import MetricSpec
from trainables.workers.outcomes import LOADING_FACTOR, Failure


def worth_reporting(results: Sequence[TrialResult], metric: MetricSpec) -> list[str]:
    """Returns the ids of the best trial by the ranking metric and of the Pareto fronts' members.

    No other trained trial is scored on the report split.
    """
    from orchestrator.analysis.pareto import front

    fronts = [*front(results), *front(results, cost="train_flops")]
    return list(dict.fromkeys(item.trial_id for item in [*ranked(results, metric)[:1], *fronts]))


def worth_keeping(results: Sequence[TrialResult], due: Iterable[str]) -> set[str]:
    """Returns the ids of the trials that `ask` may choose under any limits of memory and FLOPs."""
    from orchestrator.analysis.pareto import non_dominated

    return {*due, *(item.trial_id for item in non_dominated(results))}


def score_reports(
    sweep: Sweep, records: Sequence[TrialRecord], *, notify: Callable[[str], None]
) -> dict[str, str]:
    """Scores finished trials on the report split, once each.

    A failure is reported by `notify`, and the next start of the sweep tries the trial again.
    Returns, by trial id, why trials can't be scored on these devices: trying again is of no use.
    """
    waiting = [record for record in records if record.folder.report_score() is None]
    waiting.sort(key=lambda record: record.spec.base_key)  # so that hosts seldom load another base
    ray.get(sweep.cluster.host_scheduler.reopen.remote())
    pool = ThreadPoolExecutor(max_workers=sweep.cluster.shape.count)
    try:
        failures = list(pool.map(lambda record: _score_report(sweep, record), waiting))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C must not wait for the rest
    for record, failure in zip(waiting, failures, strict=True):
        if failure is not None:
            notify(f"warning: {not_scored(record.trial_id, failure.reason)}")
    return {
        record.trial_id: failure.reason
        for record, failure in zip(waiting, failures, strict=True)
        if failure is not None and failure.infeasible
    }


def _score_report(sweep: Sweep, record: TrialRecord) -> Failure | None:
    """Scores one trial on any host, or, if it does not fit there and was trained split, on as many
    devices as it was; returns the failure, or None."""
    knobs, estimate = record.spec.knobs, record.folder.estimate()
    # what is predicted of a trial of several workers is the share of one
    exclusive = sweep.config.resources.placement == "exclusive" or needs_ranks(knobs)
    failure = _score(sweep, record, ResourceRequest.of(estimate, exclusive=exclusive))
    workers = int(knobs.get("workers", 1))
    was_split = workers > 1 and knobs.get("zero_stage", 0) == 3
    if failure is None or not failure.infeasible or not was_split:
        return failure
    if workers > sweep.cluster.shape.count:
        return failure  # a group would wait for devices that are not there
    need = ResourceRequest.of(estimate, exclusive=exclusive, workers=workers)
    return _score(sweep, record, need)


def _score(sweep: Sweep, record: TrialRecord, need: ResourceRequest) -> Failure | None:
    place, host_scheduler = f"{record.trial_id}/report", sweep.cluster.host_scheduler
    silent = trial_limits(sweep.config.limits)["silent_seconds"]
    allowed = None if silent is None else silent * LOADING_FACTOR
    host = ray.get(host_scheduler.acquire.remote(place, record.spec.base_key, need))
    gone: tuple[type[Exception], ...] = (*host_gone(), HostUnresponsiveError)
    try:
        call = host.score_report.remote(record.folder.place, silent)
        score = wait_for(call, record.folder, silent_seconds=allowed)
    except gone as error:
        ray.get(host_scheduler.replace.remote(place))
        return Failure(
            f"its host died or hung ({type(error).__name__})",
            infeasible=isinstance(error, OutOfMemoryError),
        )
    finally:
        ray.get(host_scheduler.release.remote(place))
    record.folder.pull()
    return score if isinstance(score, Failure) else None
