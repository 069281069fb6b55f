"""Cluster: Ray, started or joined, with the sweep's hosts on it and what their device is."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.cluster.host_scheduler import start_host_scheduler
from orchestrator.cluster.host_shape import (
    HostShape,
    SharingPolicy,
    host_shape,
    one_accelerator,
)
from orchestrator.cluster.model_prefetch import ModelFiles, prefetch
from orchestrator.cluster.nodes import autoscaler_node_groups
from orchestrator.config.sections import ResourcesConfig, SweepConfig
from orchestrator.space.constraints import surviving
from trainables.errors import InputError
from trainables.models.hub import HubAccess, HubModel
from trainables.spec.knobs import needs_ranks

SECONDS_BETWEEN_WAITING_LINES = 30.0
SECONDS_BETWEEN_LOOKS = 0.5  # whether the first host is up, or nobody waits for it any more
MOST_ON_A_GPU = 8  # trials: they take turns on its cores, and each has a context of its own
_TOO_SLOW = "timed out during startup"  # Ray's words; it raises a plain Exception with them


@dataclass(frozen=True)
class Cluster:
    """The sweep's place on Ray: its admission actor, and the first host's device.

    `nodes` are the resources of the nodes that it may use, those that may still come among them.
    """

    shape: HostShape
    host_scheduler: Any  # the actor; `name` finds it from other processes
    name: str
    device: dict[str, Any]
    sharing: SharingPolicy = field(default_factory=SharingPolicy)
    nodes: tuple[Mapping[str, float], ...] = ()

    @property
    def most_trials(self) -> int:
        """How many trials may run at once, if they are small."""
        room = self.shape.count * self.sharing.hosts_per_gpu
        return min(room, self.sharing.trials or room)


class RemainingHosts:
    """Says now and then what became of lost hosts, and that none is up while trials wait for one;
    `poll` never waits."""

    def __init__(self, cluster: Cluster, notify: Callable[[str], None]) -> None:
        self._cluster, self._log = cluster, notify
        self._asked: Any = None
        self._next = time.monotonic() + SECONDS_BETWEEN_WAITING_LINES

    def poll(self) -> None:
        import ray

        if time.monotonic() < self._next:
            return
        if self._asked is None:
            self._asked = self._cluster.host_scheduler.status.remote()
        if not ray.wait([self._asked], timeout=0)[0]:
            return
        status = ray.get(self._asked)
        self._asked, self._next = None, time.monotonic() + SECONDS_BETWEEN_WAITING_LINES
        for problem in status.problems:
            self._log(f"warning: {problem}")
        if status.waiting and not status.up:
            shape = self._cluster.shape
            self._log(
                f"No host is up and {status.waiting} trials wait for one. Each host asks Ray for "
                f"{shape.cpus:g} CPUs and {shape.gpus:g} GPUs: they go on when one has started, as "
                "soon as Ray has room or a node joins."
            )


def start_ray(address: str | None, *, dashboard: bool = False) -> None:
    """Joins the cluster at `address` (None: one that runs here, else a local one is started).

    Raises InputError if nothing answers at the address.
    """
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        _leave_signals_alone()
        ray.init(
            address=address,
            namespace="sweep",
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=dashboard if address in (None, "local") else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--address {address}: no Ray cluster answers there ({reason}). "
            "Start one with `ray start --head`, or leave --address out to use this machine."
        ) from error
    except Exception as error:
        if _TOO_SLOW not in str(error):
            raise
        raise InputError(
            f"Ray did not start ({_TOO_SLOW}): the machine is busy. Run the command again."
        ) from error


def needs_dashboard(config: SweepConfig) -> bool:
    """Whether the sweep has trials of several workers.

    Ray Train asks the dashboard whether its controller still lives; without one, the placement
    group of a controller that was killed is never given back.
    """
    chosen = surviving(config.space, config.exclude, ("workers", "zero_stage"))
    return any(needs_ranks(configuration) for configuration in chosen)


def _leave_signals_alone() -> None:
    """Keeps Ray from answering SIGTERM by a SystemExit, wherever this process is just then."""
    from ray._private import utils  # there is no setting for it

    utils.set_sigterm_handler = lambda handler: None


def open_hosts(
    resources: ResourcesConfig,
    *,
    trials: int,
    provenance: dict[str, str],
    notify: Callable[[str], None],
    check: Callable[[], None],
    models: tuple[HubModel, ...] = (),
) -> Cluster:
    """Brings the hub's `models` to the nodes, starts the hosts and waits for the first; says what
    it waits for.

    `check` is called while it waits and may raise, as at a signal. Raises InputError if no node
    has room for a host or a model can't be had.
    """
    import ray

    coming = autoscaler_node_groups()
    if coming:
        notify(f"The cluster's autoscaler may start {len(coming)} more nodes.")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]] + coming
    resources, nodes = _of_one_type(resources, nodes, notify)
    shape = host_shape(
        nodes,
        cpus=resources.cpus_per_trial,
        gpus=resources.gpus_per_trial,
        count=resources.concurrent_trials,
        trials=trials,
    )
    model_files = ModelFiles(models, HubAccess.of(os.environ))
    prefetch(model_files, on_gpus=shape.gpus > 0, notify=notify, check=check)
    name = f"admission-{uuid.uuid4().hex[:12]}"
    sharing = _sharing(resources, shape)
    host_scheduler = start_host_scheduler(name, shape, provenance=provenance, sharing=sharing)
    device = _first_host(host_scheduler.open.remote(model_files), shape, notify, check)
    return Cluster(shape, host_scheduler, name, device, sharing, tuple(nodes))


def _of_one_type(
    resources: ResourcesConfig, nodes: list[Mapping[str, float]], notify: Callable[[str], None]
) -> tuple[ResourcesConfig, list[Mapping[str, float]]]:
    """One type of GPU per sweep, unless the space has chosen one: its memory decides what fits."""
    wanted = resources.accelerator_type
    left, kind = one_accelerator(nodes, wanted)
    if kind != wanted:
        notify(
            f"There are several types of GPU; this sweep uses {kind} (resources.accelerator_type)."
        )
    return replace(resources, accelerator_type=kind), left


def _sharing(resources: ResourcesConfig, shape: HostShape) -> SharingPolicy:
    """Trials share GPUs unless the space says what each trial gets of them."""
    shared = shape.gpus == 1 and resources.gpus_per_trial is None
    shared = shared and resources.placement == "shared"
    return SharingPolicy(
        hosts_per_gpu=MOST_ON_A_GPU if shared else 1,
        gpu_memory_bytes=resources.gpu_memory,
        accelerator_type=resources.accelerator_type,
        trials=resources.concurrent_trials,
    )


def _first_host(
    description: Any, shape: HostShape, notify: Callable[[str], None], check: Callable[[], None]
) -> dict[str, Any]:
    import ray

    began = said = time.monotonic()
    while not ray.wait([description], timeout=SECONDS_BETWEEN_LOOKS)[0]:
        check()
        if time.monotonic() - said >= SECONDS_BETWEEN_WAITING_LINES:
            said = time.monotonic()
            notify(_waiting_line(shape, seconds=said - began))
    device: dict[str, Any] = ray.get(description)
    return device


def _waiting_line(shape: HostShape, *, seconds: float) -> str:
    import ray

    free = ray.available_resources()
    return (
        f"Waiting for the first host ({seconds:.0f} s): it asks for "
        f"{shape.cpus:g} CPUs and {shape.gpus:g} GPUs; {free.get('CPU', 0):g} CPUs and "
        f"{free.get('GPU', 0):g} GPUs are free now."
    )
