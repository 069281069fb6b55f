"""A run of Ray Train: starts the workers of a worker group and waits until they end."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from orchestrator.cluster.ray_internals import (
    TRAIN_SETTINGS,
    failed_health_checks,
    train_controller_callback,
)
from trainables.spec.events import Event
from trainables.workers.outcomes import Failure, is_of_another_worker

if TYPE_CHECKING:
    from trainables.workers.group_member import Decision

TRAIN_FOLDER = "ray_train"  # Ray Train's own files, in the trial's folder while it runs


@dataclass(frozen=True)
class Layout:
    """How many workers, and the resources of each.

    `device_type`: cpu or cuda. `device_shared`: other trials may compute on one of the devices
    meanwhile.
    """

    workers: int
    cpus: float
    gpus: float
    device_type: str = "cpu"
    accelerator_type: str | None = None
    device_shared: bool = False


class GroupAbandonedError(Exception):
    """The trial was ended before its workers started."""


def run_train(arguments: dict[str, Any], layout: Layout) -> None:
    """Trains the trial; returns when its workers have ended.

    `arguments`: see `WorkerGroup.start`. Raises ray.train.TrainingFailedError (see
    `failure_of_train`), or a RayError if the controller has died.
    """
    os.environ.update(TRAIN_SETTINGS)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": layout.cpus, "GPU": layout.gpus}
    TorchTrainer(
        _run_worker,
        train_loop_config=arguments,
        torch_config=TorchConfig(backend="nccl" if layout.device_type == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=layout.workers,
            use_gpu=layout.gpus > 0,
            resources_per_worker={name: each for name, each in resources.items() if each},
            accelerator_type=layout.accelerator_type,
        ),
        run_config=RunConfig(
            name=TRAIN_FOLDER,
            storage_path=arguments["working_copy"],
            failure_config=FailureConfig(max_failures=0),
            callbacks=[_controller_callback(arguments["coordinator"])],
        ),
    ).fit()


def failure_of_train(error: Any) -> Failure | None:
    """The trial's failure, from what `run_train` raises.

    None if a worker was lost, or the group abandoned: the trial can be resumed elsewhere. A worker
    that Ray ended because its node ran out of memory makes the trial infeasible, because it would
    be ended again.
    """
    from ray.train import ControllerError, PreemptionError

    failures = [error.controller_failure] if isinstance(error, ControllerError) else [error]
    found: list[Exception] = [*getattr(error, "worker_failures", {}).values()] or failures
    deaths = failed_health_checks(found)
    if any(isinstance(death, ray.exceptions.OutOfMemoryError) for death in deaths):
        return Failure("its node ran out of memory", infeasible=True)
    gone = (PreemptionError, GroupAbandonedError)
    if deaths or any(isinstance(each, gone) or _is_lost(each) for each in found):
        return None
    lines = str(found[0]).strip().splitlines() or [type(found[0]).__name__]
    return Failure(f"Ray Train: {lines[0]}")


def _is_lost(error: Exception) -> bool:
    """Whether a worker failed because another one is gone; Ray Train gives its traceback."""
    return is_of_another_worker(f"{type(error).__name__}: {error}")


def _controller_callback(coordinator: Any) -> Any:
    """Gives the coordinator the controller's actor, and stops the run once it is not wanted."""

    def on_start() -> None:
        ray.get(coordinator.set_controller.remote(ray.get_runtime_context().current_actor))

    def before_workers() -> None:
        if not ray.get(coordinator.is_wanted.remote()):
            raise GroupAbandonedError

    return train_controller_callback(on_start=on_start, before_workers=before_workers)


def _run_worker(arguments: dict[str, Any]) -> None:
    """Runs in each worker's process."""
    from trainables.workers.group_member import score_as_member, train_as_member

    interrupted = threading.Event()
    coordinator = arguments["coordinator"]
    ray.get(coordinator.hub_access.remote()).use()
    threading.Thread(target=_exit_with, args=(coordinator,), daemon=True).start()
    threading.Thread(target=_await_interrupt, args=(coordinator, interrupted), daemon=True).start()
    client, silent_seconds = _CoordinatorClient(coordinator), arguments["silent_seconds"]
    if arguments["scores"]:
        score_as_member(arguments["folder"], client, silent_seconds=silent_seconds)
        return
    train_as_member(
        arguments["folder"],
        client,
        provenance=arguments["provenance"],
        silent_seconds=silent_seconds,
        device_shared=arguments["device_shared"],
        interrupted=interrupted,
    )


def _exit_with(coordinator: Any) -> None:
    """Ends this process when the coordinator dies: Ray Train would let it keep its device."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(coordinator.until_death.remote())
    os._exit(1)


def _await_interrupt(coordinator: Any, interrupted: threading.Event) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(coordinator.until_interrupted.remote())
        interrupted.set()


class _CoordinatorClient:
    """A `trainables.workers.group_member.Coordinator` that calls the coordinator's actor."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def on_start(self, history: list[Event]) -> Decision:
        decision: Decision = ray.get(self._coordinator.on_start.remote(history))
        return decision

    def on_event(self, event: Event) -> Decision:
        decision: Decision = ray.get(self._coordinator.on_event.remote(event))
        return decision

    def on_finish(self, event: Event) -> None:
        ray.get(self._coordinator.on_finish.remote(event))

    def on_score(self, score: dict[str, Any]) -> None:
        ray.get(self._coordinator.on_score.remote(score))

    def on_interrupt(self) -> None:
        ray.get(self._coordinator.on_interrupt.remote())

    def on_failure(self, failure: Failure) -> None:
        ray.get(self._coordinator.on_failure.remote(failure))
