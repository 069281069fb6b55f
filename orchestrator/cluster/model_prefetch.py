"""Fetches models and data sets of the hub to the nodes before hosts reserve accelerators there.

On a node that joins later, because a host waits for it, that host fetches them: without a host an
autoscaler would take the node away again as idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.nodes import Node, alive_nodes, run_on_all_nodes
from orchestrator.formatting import counted, format_bytes
from orchestrator.planning.sources import ModelSource
from trainables.errors import InputError, first_line
from trainables.hub_data import HubData, fetch_data
from trainables.models.hub import HubAccess, HubModel, cached_bytes, fetch_all

POLL_SECONDS = 0.5
QUIET_SECONDS = 2.0  # nothing is printed if the models are cached already
SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class ModelFiles:
    """The hub's models and data sets that a sweep loads, and how its nodes reach the hub."""

    models: tuple[HubModel, ...] = ()
    access: HubAccess = field(default_factory=HubAccess)
    data: tuple[HubData, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to fetch."""
        return bool(self.models or self.data)


def hub_models(sources: Iterable[ModelSource], *, allow_bin: bool) -> tuple[HubModel, ...]:
    """The models among `sources` that are on the hub and not in a local folder."""
    return tuple(
        HubModel(source.location, source.revision, allow_bin)
        for source in sources
        if source.revision
    )


def prefetch(
    model_files: ModelFiles,
    *,
    on_gpus: bool,
    notify: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetches the models to every node where hosts may start, by tasks that take no resources.

    Returns when they are there. `notify` gets lines of progress, and a warning for each node that
    is lost meanwhile; `check` is called while this waits, and may raise. Raises InputError with the
    reasons if models cannot be fetched.
    """
    if not model_files:
        return
    nodes = [node for node in alive_nodes() if (node.gpus if on_gpus else node.cpus) > 0]
    calls = {_start(node, model_files): node for node in nodes}
    _wait(calls, model_files, notify, check)
    faults = [fault for call, node in calls.items() for fault in _faults(call, node, notify)]
    if faults:
        raise InputError(faults)


def _start(node: Node, model_files: ModelFiles) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    affinity = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(_prefetch)
    return task.options(scheduling_strategy=affinity).remote(model_files)


def _prefetch(model_files: ModelFiles) -> list[str]:
    """Runs on a node: fetches what is not there; returns why some cannot be."""
    try:
        fetch_all(model_files.models, model_files.access)
        fetch_data(model_files.data)
    except InputError as error:
        return list(error.messages)
    return []


def _wait(
    calls: dict[Any, Node],
    model_files: ModelFiles,
    notify: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    import ray

    began = time.monotonic()
    next_line = began + QUIET_SECONDS
    left = list(calls)
    while left:
        _, left = ray.wait(left, num_returns=len(left), timeout=POLL_SECONDS)
        check()
        if left and time.monotonic() >= next_line:
            notify(
                _progress_line(
                    [calls[call] for call in left], model_files, time.monotonic() - began
                )
            )
            next_line = time.monotonic() + SECONDS_BETWEEN_LINES
    if time.monotonic() > began + QUIET_SECONDS:
        nodes, seconds = counted(len(calls), "node"), time.monotonic() - began
        what = "models" if model_files.models else "data"
        notify(f"The {what} are on {nodes} after {seconds:.0f} s.")


def _progress_line(nodes: list[Node], model_files: ModelFiles, seconds: float) -> str:
    names = [model.name for model in model_files.models] + [each.name for each in model_files.data]
    cached = run_on_all_nodes(
        nodes, cached_bytes, model_files.models, model_files.access, seconds=10.0
    )
    progress = [f"{each.node.name} {format_bytes(each.value)}" for each in cached if not each.error]
    told = "; ".join(progress) or "the nodes are busy"
    return f"Fetching {', '.join(names)} ({seconds:.0f} s): {told}"


def _faults(call: Any, node: Node, notify: Callable[[str], None]) -> list[str]:
    import ray
    from ray.exceptions import RayError

    try:
        faults: list[str] = ray.get(call)
    except RayError as error:
        notify(f"warning: models cannot be fetched to {node.name}: {first_line(error)}")
        return []
    return faults
