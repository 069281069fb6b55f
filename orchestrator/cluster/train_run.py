"""A run of Ray Train inside a worker group."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from trainables.spec.events import Event
from trainables.workers.outcomes import Failure

if TYPE_CHECKING:
    from trainables.workers.group_member import Decision

TRAIN_FOLDER = "ray_train"  # Train's own files, in the trial's folder while it runs
_TRAIN_SETTINGS = {  # read by Ray Train (ray/train/v2/_internal/constants.py)
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Of the wait for devices alone, begun anew for as long as the gang is wanted: while it
    # waits the controller hears nobody, and one that is killed then leaves its request behind.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # it would start the workers anew by itself
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@dataclass(frozen=True)
class Layout:
    """How many workers, and what each is given; `device_type`: cpu or cuda. `device_shared`: other
    trials may compute on one of their devices meanwhile."""

    workers: int
    cpus: float
    gpus: float
    device_type: str = "cpu"
    accelerator_type: str | None = None
    device_shared: bool = False


class GroupAbandonedError(Exception):
    """The trial was ended before its workers were there."""


def run_train(given: dict[str, Any], layout: Layout) -> None:
    os.environ.update(_TRAIN_SETTINGS)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = {"CPU": layout.cpus, "GPU": layout.gpus}
    TorchTrainer(
        _work,
        train_loop_config=given,
        torch_config=TorchConfig(backend="nccl" if layout.device_type == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=layout.workers,
            use_gpu=layout.gpus > 0,
            resources_per_worker={name: each for name, each in resources.items() if each},
            accelerator_type=layout.accelerator_type,
        ),
        run_config=RunConfig(
            name=TRAIN_FOLDER,
            storage_path=given["working_copy"],
            failure_config=FailureConfig(max_failures=0),
            callbacks=[_controller_callback(given["coordinator"])],
        ),
    ).fit()


def _controller_callback(coordinator: Any) -> Any:
    """Tells the front of the controller, in whose process it is called, and asks before each
    attempt to start the workers whether they are wanted."""
    from ray.train.v2._internal.execution.callback import ControllerCallback

    class TellsOfItself(ControllerCallback):  # type: ignore[misc]  # Ray carries no types
        def after_controller_start(self, train_run_context: Any) -> None:
            ray.get(coordinator.controlled_by.remote(ray.get_runtime_context().current_actor))

        def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
            if not ray.get(coordinator.is_wanted.remote()):
                raise GroupAbandonedError

    return TellsOfItself()


def _work(given: dict[str, Any]) -> None:
    """What each worker does, in a process of its own."""
    from trainables.workers.group_member import train_as_member

    interrupted = threading.Event()
    coordinator = given["coordinator"]
    ray.get(coordinator.hub_access.remote()).use()
    threading.Thread(target=_die_with, args=(coordinator,), daemon=True).start()
    threading.Thread(target=_receive, args=(coordinator, interrupted), daemon=True).start()
    train_as_member(
        given["folder"],
        _Calls(coordinator),
        provenance=given["provenance"],
        silent_seconds=given["silent_seconds"],
        device_shared=given["device_shared"],
        interrupted=interrupted,
    )


def _die_with(coordinator: Any) -> None:
    """A worker without its front would keep its device for ever: Ray Train does not see to it."""
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(coordinator.until_death.remote())
    os._exit(1)


def _receive(coordinator: Any, interrupted: threading.Event) -> None:
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(coordinator.until_interrupted.remote())
        interrupted.set()


class _Calls:
    """`trainables.workers.group_member.Coordinator`, in the coordinator's process."""

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

    def on_interrupt(self) -> None:
        ray.get(self._coordinator.on_interrupt.remote())

    def on_failure(self, failure: Failure) -> None:
        ray.get(self._coordinator.on_failure.remote(failure))


def failure_of_train(error: Any) -> Failure | None:
    """None where a worker is gone, or none was wanted: the trial goes on elsewhere from its
    checkpoint. One that Ray ended because its node ran out of memory would only be ended again."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError

    gone = (WorkerHealthCheckFailedError, PreemptionError, GroupAbandonedError)
    failures = [error.controller_failure] if isinstance(error, ControllerError) else [error]
    found: list[Exception] = [*getattr(error, "worker_failures", {}).values()] or failures
    dead = [each for each in found if isinstance(each, WorkerHealthCheckFailedError)]
    if any(isinstance(each.health_check_failure, ray.exceptions.OutOfMemoryError) for each in dead):
        return Failure("its node ran out of memory", infeasible=True)
    if any(isinstance(each, gone) or "gloo" in str(each) for each in found):
        return None
    lines = str(found[0]).strip().splitlines() or [type(found[0]).__name__]
    return Failure(f"Ray Train: {lines[0]}")
