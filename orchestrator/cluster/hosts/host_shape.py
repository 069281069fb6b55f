"""HostShape: the resources of a host, and how many hosts a cluster has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.formatting import counted
from orchestrator.planning.capacity import CPU_HOST_MEMORY_BYTES
from trainables.errors import InputError

_ROUNDING = 1e-9  # 1.0 // 0.2 is 4


@dataclass(frozen=True)
class HostShape:
    """The CPUs and GPUs that a host requests of Ray, and how many hosts the sweep keeps."""

    cpus: float
    gpus: float
    count: int


@dataclass(frozen=True)
class SharingPolicy:
    """How trials share devices.

    `hosts_per_gpu`: the most trials on one GPU at once. `gpu_memory_bytes`: what a GPU is taken to
    have; None: what it reports. `accelerator_type`: Ray's name of the type of GPU that is used;
    None: any. `trials`: the most trials that run at once; None: as many as fit.
    """

    hosts_per_gpu: int = 1
    gpu_memory_bytes: int | None = None
    accelerator_type: str | None = None
    trials: int | None = None


def host_shape(
    nodes: Sequence[Mapping[str, float]],
    *,
    cpus: float | None,
    gpus: float | None,
    count: int | None,
    trials: int,
) -> HostShape:
    """Divides the cluster among hosts: a GPU each if there are any, else a CPU core each.

    `nodes` are the resources of Ray's nodes (CPU, GPU, memory in bytes); `cpus`, `gpus` and `count`
    are what the space sets, or None. The host of a GPU gets its share of the node's cores. There
    are never more hosts than `trials`, and on CPUs never more than fit in memory. Raises InputError
    if no node has room for a host.
    """
    has_gpus = any(node.get("GPU", 0) >= 1 for node in nodes)
    each_gpus = (1.0 if has_gpus else 0.0) if gpus is None else gpus
    each_cpus = _cpus_each(nodes, each_gpus) if cpus is None else cpus
    room = sum(_room(node, each_cpus, each_gpus) for node in nodes)
    if room == 0:
        raise InputError(_no_room(nodes, each_cpus, each_gpus))
    wanted = min(room, trials) if count is None else min(room, count)
    return HostShape(each_cpus, each_gpus, max(1, wanted))


def _cpus_each(nodes: Sequence[Mapping[str, float]], gpus: float) -> float:
    """Cores per host: a whole number if there are enough, else a fraction of one."""
    if gpus == 0:
        return 1.0
    shares = [
        node.get("CPU", 0) / max(1, math.floor(node["GPU"] / gpus + _ROUNDING))
        for node in nodes
        if node.get("GPU", 0) >= min(gpus, 1)
    ]
    share = min(shares, default=1.0)
    return float(math.floor(share)) if share >= 1 else share


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many hosts a node has room for."""
    limits = [(node.get("CPU", 0), cpus), (node.get("GPU", 0), gpus)]
    if gpus == 0 and "memory" in node:
        limits.append((node["memory"], CPU_HOST_MEMORY_BYTES))
    return min(math.floor(has / each + _ROUNDING) for has, each in limits if each > 0)


def _no_room(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> str:
    have = "; ".join(
        f"{counted(node.get('CPU', 0), 'CPU')}, {counted(node.get('GPU', 0), 'GPU')}"
        for node in nodes
    )
    asked = f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"
    return (
        f"resources: a trial asks for {asked}, and no node has them "
        f"(nodes: {have}). Lower resources.cpus_per_trial or resources.gpus_per_trial."
    )
