"""Checks of a cluster file's node types: their resources, and whether a trial fits on any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.cluster.hosts.host_shape import host_shape
from orchestrator.config.sections import ResourcesConfig
from trainables.errors import InputError

Config = Mapping[str, Any]
INSTANCES: Mapping[str, tuple[int, int, str]] = {  # vCPUs, GPUs, Ray's name of the GPU
    "g4dn.xlarge": (4, 1, "T4"),
    "g4dn.2xlarge": (8, 1, "T4"),
    "g4dn.12xlarge": (48, 4, "T4"),
    "g5.xlarge": (4, 1, "A10G"),
    "g5.2xlarge": (8, 1, "A10G"),
    "g5.12xlarge": (48, 4, "A10G"),
    "g5.48xlarge": (192, 8, "A10G"),
    "p4d.24xlarge": (96, 8, "A100"),
    "n1-standard-8": (8, 8, "T4"),  # as many as are attached to it
    "g2-standard-8": (8, 1, "L4"),
    "a2-highgpu-1g": (12, 1, "A100"),
    "a2-highgpu-8g": (96, 8, "A100"),
}


def node_faults(config: Config) -> Iterator[str]:
    """Node types that declare resources which the instance lacks, or that can't start."""
    for name, kind in config.get("available_node_types", {}).items():
        where, node = f"available_node_types.{name}", kind.get("node_config", {})
        low, high = kind.get("min_workers", 0), kind.get("max_workers", config["max_workers"])
        if name != config.get("head_node_type") and low > high:
            yield f"{where}: min_workers {low} is above max_workers {high}. Lower one of them."
        if name == config.get("head_node_type") and _is_spot(node):
            yield f"{where}: the head is a spot machine; with it the cluster goes. Use on-demand."
        instance = node.get("InstanceType") or node.get("machineType")
        if instance in INSTANCES:
            yield from _promise_faults(where, str(instance), kind.get("resources", {}))


def room_faults(config: Config, resources: ResourcesConfig) -> Iterator[str]:
    """A fault if a trial fits on no declared node type; own machines declare no resources."""
    types = config.get("available_node_types", {})
    nodes = [
        kind["resources"]
        for name, kind in types.items()
        if kind.get("resources") and (name == config["head_node_type"] or _may_start(kind, config))
    ]
    if not nodes:
        return
    try:
        host_shape(
            nodes,
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            count=resources.concurrent_trials,
            trials=1,
        )
    except InputError as error:
        yield from error.messages


def _promise_faults(where: str, instance: str, promised: Mapping[str, int]) -> Iterator[str]:
    cpus, gpus, accelerator = INSTANCES[instance]
    for resource, has in (("CPU", cpus), ("GPU", gpus)):
        if promised.get(resource, 0) > has:
            yield (
                f"{where}.resources.{resource}: promises {promised[resource]}, {instance} has "
                f"{has}: the autoscaler would start machines for ever. Write {has}."
            )
    prefix = "accelerator_type:"
    for resource in promised:
        if resource.startswith(prefix) and resource != prefix + accelerator:
            yield f"{where}.resources.{resource}: {instance} has {prefix}{accelerator}."


def _is_spot(node: Config) -> bool:
    market = node.get("InstanceMarketOptions", {}).get("MarketType")
    scheduling = node.get("scheduling", [])
    parts = scheduling if isinstance(scheduling, list) else [scheduling]
    return market == "spot" or any(part.get("preemptible") for part in parts)


def _may_start(kind: Config, config: Config) -> bool:
    allowed: int = min(kind.get("max_workers", config["max_workers"]), config["max_workers"])
    return allowed > 0
