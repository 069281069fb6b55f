"""Cluster: starts or joins Ray and starts the sweep's hosts on it."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.cluster.hosts.host_scheduler import start_host_scheduler
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy, host_shape
from orchestrator.cluster.joined_cluster import no_cluster, ray_start
from orchestrator.cluster.model_prefetch import ModelFiles, prefetch
from orchestrator.cluster.nodes import autoscaler_node_groups, one_accelerator
from orchestrator.cluster.ray_internals import (
    has_started_ray,
    keep_sigterm_handler,
    shield_ray_processes,
)
from orchestrator.config.sections import ResourcesConfig, SweepConfig
from orchestrator.formatting import counted
from orchestrator.space.constraints import surviving
from trainables.errors import InputError
from trainables.hub_data import HubData
from trainables.models.hub import HubAccess, HubModel
from trainables.spec.knobs import needs_ranks

PROGRESS_SECONDS = 30.0  # between two lines that say what the sweep waits for
POLL_SECONDS = 0.5  # whether the first host is up, or the user has interrupted
MAX_TRIALS_PER_GPU = 8  # they take turns on its cores, and each has a CUDA context
_STARTUP_TIMEOUT = "timed out during startup"  # in the message of Ray's plain Exception


@dataclass(frozen=True)
class Cluster:
    """The sweep's hosts on Ray: the actor of their scheduler, and the first host's device.

    `nodes` are the resources of the nodes that the sweep may use, including those that an
    autoscaler may start.
    """

    shape: HostShape
    host_scheduler: Any  # the actor; other processes get it by `name`
    name: str
    device: dict[str, Any]
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    nodes: tuple[Mapping[str, float], ...] = ()

    @property
    def max_trials(self) -> int:
        """How many trials may run at once if they are small."""
        room = self.shape.count * self.sharing.hosts_per_gpu
        return min(room, self.sharing.trials or room)


class RemainingHosts:
    """Reports problems with hosts at intervals, and that none is up while trials wait for one.

    `poll` does not block.
    """

    def __init__(self, cluster: Cluster, notify: Callable[[str], None]) -> None:
        self._cluster, self._notify = cluster, notify
        self._call: Any = None
        self._next = time.monotonic() + PROGRESS_SECONDS

    def poll(self) -> None:
        import ray

        if time.monotonic() < self._next:
            return
        if self._call is None:
            self._call = self._cluster.host_scheduler.status.remote()
        if not ray.wait([self._call], timeout=0)[0]:
            return
        status = ray.get(self._call)
        self._call, self._next = None, time.monotonic() + PROGRESS_SECONDS
        for problem in status.problems:
            self._notify(f"warning: {problem}")
        if status.waiting and not status.up:
            shape = self._cluster.shape
            self._notify(
                f"No host is up and {counted(status.waiting, 'trial waits', 'trials wait')} for "
                f"one. Each host asks Ray for {counted(shape.cpus, 'CPU')} and "
                f"{counted(shape.gpus, 'GPU')}. Trials continue when one has started, as soon as "
                "Ray has these resources or a node joins."
            )


def start_ray(
    address: str | None,
    *,
    dashboard: bool = False,
    notify: Callable[[str], None] = lambda line: None,
) -> None:
    """Joins the cluster at `address`; None: one on this machine, or else starts a local one.

    A Ray that this starts outlives the signals by which a sweep is asked to end. `notify` gets
    what the user should know of the choice. Raises InputError if no cluster answers there, or Ray
    does not start in time.
    """
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    start = ray_start(address, notify)
    own = start.address == "local"
    try:
        keep_sigterm_handler()
        shield_ray_processes()
        ray.init(
            address=start.address,
            namespace="sweep",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=dashboard if own else None,
            _temp_dir=None if start.folder is None else str(start.folder),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        if own:
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise no_cluster(start, reason) from error
    except Exception as error:
        if _STARTUP_TIMEOUT not in str(error):
            raise
        raise InputError(
            f"Ray did not start ({_STARTUP_TIMEOUT}): the machine is busy. Run the command again."
        ) from error


def stop_ray() -> None:
    """Leaves Ray, or ends the one that was started.

    Meanwhile Python collects no garbage: a reference to one of Ray's objects that another thread
    frees during `ray.shutdown` ends the process at once, with what it has still to write.
    """
    import ray

    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


def needs_dashboard(config: SweepConfig) -> bool:
    """Whether the sweep has trials of several workers.

    Ray Train asks the dashboard whether its controller still lives; without a dashboard the
    placement group of a killed controller is never removed.
    """
    chosen = surviving(config.space, config.exclude, ("workers", "zero_stage"))
    return any(needs_ranks(configuration) for configuration in chosen)


def open_hosts(
    resources: ResourcesConfig,
    *,
    trials: int,
    provenance: dict[str, str],
    notify: Callable[[str], None],
    check: Callable[[], None],
    models: tuple[HubModel, ...] = (),
    data: tuple[HubData, ...] = (),
    python: Sequence[str] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Cluster:
    """Fetches the hub's `models` and `data` to the nodes, starts the hosts and waits for the first
    one.

    `notify` gets lines of progress. `check` is called while this waits, and may raise, for instance
    after a signal. `meanwhile` is called once, while the hosts start. `python` is a command of this
    machine that replaces Python in the processes of hosts; it is used if this process has started
    Ray, so that all hosts are on this machine. Raises InputError if no node has room for a host or
    something cannot be fetched.
    """
    import ray

    coming = autoscaler_node_groups()
    if coming:
        notify(f"The cluster's autoscaler may start {counted(len(coming), 'more node')}.")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] + coming
    resources, nodes = _of_one_type(resources, nodes, notify)
    shape = host_shape(
        nodes,
        cpus=resources.cpus_per_trial,
        gpus=resources.gpus_per_trial,
        count=resources.concurrent_trials,
        trials=trials,
    )
    model_files = ModelFiles(models, HubAccess.of(os.environ), data)
    prefetch(model_files, on_gpus=shape.gpus > 0, notify=notify, check=check)
    name = f"host-scheduler-{uuid.uuid4().hex[:12]}"
    sharing = _sharing(resources, shape)
    host_scheduler = start_host_scheduler(
        name,
        shape,
        provenance=provenance,
        sharing=sharing,
        python=shlex.join(python) if python and has_started_ray() else None,
    )
    description = host_scheduler.open.remote(model_files)
    meanwhile()
    device = _first_host(description, shape, notify, check)
    return Cluster(shape, host_scheduler, name, device, sharing, tuple(nodes))


def _of_one_type(
    resources: ResourcesConfig, nodes: list[Mapping[str, float]], notify: Callable[[str], None]
) -> tuple[ResourcesConfig, list[Mapping[str, float]]]:
    """The nodes with the type of GPU that the space names, or else with the most common one.

    A sweep uses one type, because its memory decides which trials fit.
    """
    wanted = resources.accelerator_type
    chosen, kind = one_accelerator(nodes, wanted)
    if kind != wanted:
        notify(
            f"There are several types of GPU; this sweep uses {kind} (resources.accelerator_type)."
        )
    return replace(resources, accelerator_type=kind), chosen


def _sharing(resources: ResourcesConfig, shape: HostShape) -> SharingPolicy:
    """Trials share GPUs unless the space sets the resources of a trial, or placement."""
    shared = shape.gpus == 1 and resources.gpus_per_trial is None
    shared = shared and resources.placement == "shared"
    return SharingPolicy(
        hosts_per_gpu=MAX_TRIALS_PER_GPU if shared else 1,
        gpu_memory_bytes=resources.gpu_memory,
        accelerator_type=resources.accelerator_type,
        trials=resources.concurrent_trials,
    )


def _first_host(
    description: Any, shape: HostShape, notify: Callable[[str], None], check: Callable[[], None]
) -> dict[str, Any]:
    import ray

    began = reported = time.monotonic()
    while not ray.wait([description], timeout=POLL_SECONDS)[0]:
        check()
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            notify(_progress_line(shape, seconds=reported - began))
    device: dict[str, Any] = ray.get(description)
    return device


def _progress_line(shape: HostShape, *, seconds: float) -> str:
    import ray

    free = ray.available_resources()
    return (
        f"Waiting for the first host ({seconds:.0f} s): it asks for "
        f"{counted(shape.cpus, 'CPU')} and {counted(shape.gpus, 'GPU')}; "
        f"{counted(free.get('CPU', 0), 'CPU')} and {counted(free.get('GPU', 0), 'GPU')} are free "
        "now."
    )
