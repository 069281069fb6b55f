"""One piece of work on every node of the running Ray cluster, whatever else runs there. LIGHT."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """A node that Ray counts as alive; `name` is its address, made unique."""

    node_id: str
    name: str
    cpus: float
    gpus: float
    is_driver: bool  # this process runs there


@dataclass(frozen=True)
class Answer:
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


def on_every_node(
    nodes: Sequence[Node],
    work: Callable[..., Any],
    *arguments: Any,
    seconds: float = 120.0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Answer]:
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
            answers.append(Answer(node, error=_in_a_line(error)))
            ray.cancel(call, force=True)
        else:
            answers.append(Answer(node, value))
        say(f"{len(answers)} of {len(nodes)} nodes")
    return answers


def _in_a_line(error: BaseException) -> str:
    """The last line that says something: Ray puts the remote traceback into the message."""
    from ray.exceptions import GetTimeoutError

    if isinstance(error, GetTimeoutError):
        return "it does not answer"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
