"""Nodes that the cluster's autoscaler may still start: a sweep may begin while none runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeGroup:
    """One type of node of the cluster's file: its resources, and how many there may be."""

    name: str
    resources: Mapping[str, float]
    most: int


def nodes_that_may_come() -> list[Mapping[str, float]]:
    """The resources of each node that the autoscaler may start beside those that run.

    Empty where no autoscaler runs. Ray's second autoscaler (the default of `ray up` on a cloud, and
    KubeRay's `version: v2`) tells of its node types; the first one does not, and counts as none.
    """
    import ray
    from ray._private.state import state  # the only place where Ray says so to programs

    config = state.get_cluster_config()
    if config is None:
        return []
    groups = [
        NodeGroup(group.name, dict(group.resources), int(group.max_count))
        for group in config.node_group_configs
    ]
    alive = [node for node in ray.nodes() if node["Alive"]]
    return possible_nodes(groups, (node.get("Labels", {}) for node in alive))


def possible_nodes(
    groups: Sequence[NodeGroup], alive_labels: Iterable[Mapping[str, str]]
) -> list[Mapping[str, float]]:
    """What is left of each group when the nodes that run, known by their labels, are taken off."""
    running = Counter(labels.get("ray.io/node-group", "") for labels in alive_labels)
    return [
        group.resources for group in groups for _ in range(max(0, group.most - running[group.name]))
    ]
