"""The nodes of the running Ray cluster: which there are or may come, and work on each of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import InputError

_TYPE = "accelerator_type:"  # the prefix of Ray's names of types of GPU
_OPTION = "--autoscaling-config="  # of the autoscaler's process
_HEAD = "node:__internal_head__"  # a resource of the head node alone


@dataclass(frozen=True)
class Node:
    """An alive node; `name` is its address, made unique."""

    node_id: str
    name: str
    cpus: float
    gpus: float
    is_driver: bool  # this process runs on it


@dataclass(frozen=True)
class NodeResult:
    """What the work returned on a node, or in one line why it failed."""

    node: Node
    value: Any = None
    error: str = ""


def alive_nodes() -> list[Node]:
    """All alive nodes, the driver's first, then by address. Ray must be initialised."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    addresses = [node["NodeManagerAddress"] for node in alive]
    nodes = [
        Node(
            node_id=node["NodeID"],
            name=address if addresses.count(address) == 1 else f"{address}/{node['NodeID'][:6]}",
            cpus=node["Resources"].get("CPU", 0),
            gpus=node["Resources"].get("GPU", 0),
            is_driver=node["NodeID"] == own,
        )
        for node, address in zip(alive, addresses, strict=True)
    ]
    return sorted(nodes, key=lambda node: (not node.is_driver, node.name))


def run_on_all_nodes(
    nodes: Sequence[Node],
    work: Callable[..., Any],
    *arguments: Any,
    seconds: float = 120.0,
    notify: Callable[[str], None] = lambda line: None,
) -> list[NodeResult]:
    """Runs `work(*arguments)` once on each node, in parallel; returns the results in their order.

    It takes no CPU and no GPU, so that it runs beside a sweep. A node without a result after
    `seconds` gets an error. `work` must be a function of a module, which the node imports from its
    own files. `notify` gets a line of progress after each node.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    calls = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    end, results = time.monotonic() + seconds, []
    for node, call in zip(nodes, calls, strict=True):
        try:
            value = ray.get(call, timeout=max(0.1, end - time.monotonic()))
        except RayError as error:
            results.append(NodeResult(node, error=_last_line(error)))
            ray.cancel(call, force=True)
        else:
            results.append(NodeResult(node, value))
        notify(f"{len(results)} of {len(nodes)} nodes")
    return results


@dataclass(frozen=True)
class NodeGroup:
    """A node type of the cluster file: its resources and its maximum number of nodes."""

    name: str
    resources: Mapping[str, float]
    max_nodes: int


def autoscaler_node_groups() -> list[Mapping[str, float]]:
    """The resources of each node that the autoscaler may start in addition to the running ones.

    Ray has no API for its node types, so this finds the autoscaler's process on the head and reads
    its configuration file. Empty if no autoscaler runs there, as on KubeRay, whose autoscaler is a
    container of its own.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    config = _file_on_head([node for node in alive if _HEAD in node["Resources"]])
    if config is None:
        return []
    workers = [node for node in alive if _HEAD not in node["Resources"]]
    return possible_nodes(
        node_groups(config),
        [node.get("Labels", {}) for node in workers],
        max_workers=int(config["max_workers"]),
    )


def node_groups(config: Mapping[str, Any]) -> list[NodeGroup]:
    """The types of worker node of a cluster file that state their resources."""
    node_types = {**config.get("available_node_types", {})}
    node_types.pop(config.get("head_node_type"), None)
    return [
        NodeGroup(name, kind["resources"], int(kind.get("max_workers", config["max_workers"])))
        for name, kind in node_types.items()
        if kind.get("resources")
    ]


def possible_nodes(
    groups: Sequence[NodeGroup], workers: Sequence[Mapping[str, str]], *, max_workers: int
) -> list[Mapping[str, float]]:
    """The resources of the nodes that each group may still get.

    `workers` are the labels of the running worker nodes; at most `max_workers` run in all. Of the
    nodes with one type of GPU those with the most GPUs are returned, up to that number; all types
    together may be more.
    """
    running = Counter(labels.get("ray.io/node-group", "") for labels in workers)
    left: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for group in groups:
        nodes = [group.resources] * max(0, group.max_nodes - running[group.name])
        left.setdefault(tuple(accelerator_types(group.resources)), []).extend(nodes)
    room = max(0, max_workers - len(workers))
    return [
        node
        for nodes in left.values()
        for node in sorted(nodes, key=lambda node: -node.get("GPU", 0))[:room]
    ]


def one_accelerator(
    nodes: Sequence[Mapping[str, float]], wanted: str | None
) -> tuple[list[Mapping[str, float]], str | None]:
    """Returns the nodes with one type of GPU, and its name.

    A sweep uses one type because what fits on one may not fit on another. The type is `wanted`, or
    that of most GPUs if that is None. If none is wanted and there is at most one type, returns all
    nodes and None. Raises InputError if Ray knows the types of its GPUs and `wanted` is none of
    them.
    """
    gpus: Counter[str] = Counter()
    for node in nodes:
        for name in accelerator_types(node):
            gpus[name] += int(node.get("GPU", 0))
    if wanted is not None and not gpus:
        return list(nodes), wanted
    if wanted is None and len(gpus) < 2:
        return list(nodes), None
    chosen = max(sorted(gpus), key=lambda name: gpus[name]) if wanted is None else _TYPE + wanted
    if chosen not in gpus:
        found = ", ".join(sorted(name.removeprefix(_TYPE) for name in gpus))
        raise InputError(
            f"resources.accelerator_type: no node has a GPU of the type {wanted}; there are: "
            f"{found}. Give one of these, or leave it out."
        )
    return [node for node in nodes if chosen in node], chosen.removeprefix(_TYPE)


def accelerator_types(resources: Mapping[str, float]) -> list[str]:
    """The names of a node's types of GPU among its resources, such as "accelerator_type:T4"."""
    return sorted(name for name in resources if name.startswith(_TYPE))


def autoscaler_config_file(gcs_address: str) -> dict[str, Any] | None:
    """The configuration that the cluster's autoscaler on this machine was started with, or None.

    Runs on the head.
    """
    import psutil  # type: ignore[import-untyped]  # it carries no types
    import yaml

    for process in psutil.process_iter(["cmdline"]):
        words: Sequence[str] = process.info["cmdline"] or ()
        files = [word.removeprefix(_OPTION) for word in words if word.startswith(_OPTION)]
        if files and f"--gcs-address={gcs_address}" in words:
            found: dict[str, Any] = yaml.safe_load(Path(files[0]).expanduser().read_text("utf-8"))
            return found
    return None


def host_gone() -> tuple[type[Exception], ...]:
    """The exceptions of a call to a host that has died or that Ray ended to free memory."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

    return (RayActorError, NodeDiedError, OutOfMemoryError)


def dead_nodes() -> set[str]:
    """The ids of the nodes that have left the cluster or failed."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def _last_line(error: BaseException) -> str:
    """The last non-empty line of an error: Ray puts the remote traceback before it."""
    from ray.exceptions import GetTimeoutError

    if isinstance(error, GetTimeoutError):
        return "it does not answer"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _file_on_head(heads: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.get_runtime_context()
    for head in heads:
        if head["NodeID"] == context.get_node_id():
            return autoscaler_config_file(context.gcs_address)
        affinity = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
        ask = ray.remote(num_cpus=0)(autoscaler_config_file).options(scheduling_strategy=affinity)
        found: dict[str, Any] | None = ray.get(ask.remote(context.gcs_address))
        return found
    return None
