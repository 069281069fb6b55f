"""Runs the trials of a sweep through Ray Tune.

Tune schedules light actors (TuneTrial). TrialQueue decides what runs next, Ledger keeps the
results, and SweepCallback passes each event to the observers (display, tracker).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from typing import Any

import ray.train.trainer  # noqa: F401  # Tuner imports it only when it is made
from ray import tune

from orchestrator.cluster.ray_internals import keep_environment_out_of_tune
from orchestrator.execution.running_sweep import Sweep, look_ahead, replay_events
from orchestrator.execution.signals import DeferredSignals
from orchestrator.execution.tune_callback import SweepCallback
from orchestrator.execution.tune_searcher import QueueSearcher
from orchestrator.execution.tune_trial import TuneTrial
from orchestrator.search.schedulers import SCHEDULERS
from trainables.storage.errors import storage_error_in


def run_trials(sweep: Sweep, *, signals: DeferredSignals) -> bool:
    """Runs trials until the queue is over; returns False if the user interrupted the sweep.

    At an interrupt (Ctrl-C) the running trials save a checkpoint and end; a second one raises
    SecondInterrupt at once.
    """
    _quiet_tune()
    scheduler = _scheduler(sweep)
    scratch = tempfile.mkdtemp(prefix="sweep-tune-")
    callback = SweepCallback(sweep, scheduler, signals=signals)
    _fit(sweep, scheduler, callback, scratch)
    if callback.fault is not None:
        raise callback.fault
    return sweep.trial_queue.over and not signals.asked


def _fit(sweep: Sweep, scheduler: Any, callback: SweepCallback, scratch: str) -> None:
    try:
        tune.Tuner(
            tune.with_resources(TuneTrial, _next_to_no_resources()),
            tune_config=tune.TuneConfig(
                search_alg=QueueSearcher(sweep, poll=callback.poll),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=sweep.cluster.max_trials + look_ahead(sweep),
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
    except tune.TuneError as error:  # Tune wraps what its callbacks raise
        raise (callback.fault or storage_error_in(error) or error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scheduler(sweep: Sweep) -> Any:
    """Returns the scheduler of the space, with the rungs of earlier starts replayed."""
    config = sweep.config
    scheduler = SCHEDULERS[config.scheduler.kind](config.scheduler, config.budget.train_examples)
    for record in sweep.ledger:
        replay_events(scheduler, config, record, record.history)
    return scheduler


def _next_to_no_resources() -> tune.PlacementGroupFactory:
    """Returns resources that keep Tune's actors on the head node and all CPUs and GPUs free."""
    return tune.PlacementGroupFactory([{"node:__internal_head__": 0.001}])


def _quiet_tune() -> None:
    """Turns off Tune's display, files, signal handler and checks of results."""
    keep_environment_out_of_tune()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see DeferredSignals
    os.environ["TUNE_FORCE_TRIAL_CLEANUP_S"] = "30"
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
