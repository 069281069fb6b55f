"""One piece of work on every node of the running Ray cluster, whatever else runs there. LIGHT."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.host_shape import accelerator_types


@dataclass(frozen=True)
class Node:
    """A node that Ray counts as alive; `name` is its address, made unique."""

    node_id: str
    name: str
    cpus: float
    gpus: float
    is_driver: bool  # this process runs there


@dataclass(frozen=True)
class NodeResult:
    """What the work returned on a node; or why it did not, in one line."""

    node: Node
    value: Any = None
    error: str = ""


def alive_nodes() -> list[Node]:
    """Every node, the driver's first, then by address; needs an initialised Ray."""
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
    """Runs `work(*arguments)` once on each node, at the same time; answers in the nodes' order.

    It takes no CPU and no GPU, so that it runs where a sweep runs. A node that has not answered
    after `seconds` counts as silent. `work` must be a function of a module: its code is the
    node's own.
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
    end, answers = time.monotonic() + seconds, []
    for node, call in zip(nodes, calls, strict=True):
        try:
            value = ray.get(call, timeout=max(0.1, end - time.monotonic()))
        except RayError as error:
            answers.append(NodeResult(node, error=_in_a_line(error)))
            ray.cancel(call, force=True)
        else:
            answers.append(NodeResult(node, value))
        notify(f"{len(answers)} of {len(nodes)} nodes")
    return answers


def _in_a_line(error: BaseException) -> str:
    """The last line that says something: Ray puts the remote traceback into the message."""
    from ray.exceptions import GetTimeoutError

    if isinstance(error, GetTimeoutError):
        return "it does not answer"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


_OPTION = "--autoscaling-config="
_HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class NodeGroup:
    """One type of node of the cluster's file: its resources, and how many there may be."""

    name: str
    resources: Mapping[str, float]
    most: int


def autoscaler_node_groups() -> list[Mapping[str, float]]:
    """The resources of each node that the autoscaler may start beside those that run.

    Ray does not tell programs of its node types, so the head's autoscaler is looked for and the
    file read that it was started with. Empty where no autoscaler runs on the head, as on KubeRay,
    whose autoscaler is a container of its own.
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
        most=int(config["max_workers"]),
    )


def node_groups(config: Mapping[str, Any]) -> list[NodeGroup]:
    """The types of worker of a cluster's file that say what they have."""
    kinds = {**config.get("available_node_types", {})}
    kinds.pop(config.get("head_node_type"), None)
    return [
        NodeGroup(name, kind["resources"], int(kind.get("max_workers", config["max_workers"])))
        for name, kind in kinds.items()
        if kind.get("resources")
    ]


def possible_nodes(
    groups: Sequence[NodeGroup], workers: Sequence[Mapping[str, str]], *, most: int
) -> list[Mapping[str, float]]:
    """What is left of each group when the workers that run, known by their labels, are taken off.

    There are never more than `most` workers: of the nodes with one type of GPU those with the most
    GPUs are taken, as many as there is room for. All types together may be more.
    """
    running = Counter(labels.get("ray.io/node-group", "") for labels in workers)
    left: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for group in groups:
        nodes = [group.resources] * max(0, group.most - running[group.name])
        left.setdefault(tuple(accelerator_types(group.resources)), []).extend(nodes)
    room = max(0, most - len(workers))
    return [
        node
        for nodes in left.values()
        for node in sorted(nodes, key=lambda node: -node.get("GPU", 0))[:room]
    ]


def autoscaler_config_file(gcs_address: str) -> dict[str, Any] | None:
    """The file that this machine's autoscaler of the cluster was started with; None: there is
    none. Runs on the head."""
    import psutil  # type: ignore[import-untyped]  # it carries no types
    import yaml

    for process in psutil.process_iter(["cmdline"]):
        words: Sequence[str] = process.info["cmdline"] or ()
        files = [word.removeprefix(_OPTION) for word in words if word.startswith(_OPTION)]
        if files and f"--gcs-address={gcs_address}" in words:
            found: dict[str, Any] = yaml.safe_load(Path(files[0]).expanduser().read_text())
            return found
    return None


def _file_on_head(heads: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    context = ray.get_runtime_context()
    for head in heads:
        if head["NodeID"] == context.get_node_id():
            return autoscaler_config_file(context.gcs_address)
        there = NodeAffinitySchedulingStrategy(head["NodeID"], soft=False)
        ask = ray.remote(num_cpus=0)(autoscaler_config_file).options(scheduling_strategy=there)
        found: dict[str, Any] | None = ray.get(ask.remote(context.gcs_address))
        return found
    return None


def host_gone() -> tuple[type[Exception], ...]:
    """What Ray raises for a call to a host that is no more, or that it ended for its memory."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

    return (RayActorError, NodeDiedError, OutOfMemoryError)


def dead_nodes() -> set[str]:
    """Ids of the nodes that were there and are gone."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def draining_nodes() -> set[str]:
    """Ids of the nodes that take no more work because they are about to be taken away."""
    from ray._private.state import state  # the only place where Ray says so to programs

    return set(state.get_draining_nodes())
