"""Capacity: how much memory a trial may take on its device, and how that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.errors import InputError

if TYPE_CHECKING:
    from orchestrator.config.sections import ResourcesConfig

CPU, CUDA = "cpu", "cuda"


@dataclass(frozen=True)
class Capacity:
    """Bytes that one trial may take on each device, and the number of devices.

    `source`: how the bytes are known, in words.
    """

    bytes: int
    device_type: str  # CPU or CUDA
    source: str
    devices: int = 1


def cluster_capacity(
    resources: ResourcesConfig,
    device: Mapping[str, Any],
    nodes: Sequence[Mapping[str, float]],
) -> Capacity | None:
    """The capacity of a cluster, from the description of its first host's device; None if unknown.

    `nodes`: the resources of Ray's nodes, including those that it can still start. Raises
    InputError for `resources.gpu_memory` on a cluster without GPUs.
    """
    kind = str(device.get("device_type", CPU))
    if kind != CUDA:
        return _of_cpus(resources, device, nodes)
    devices = int(resources.gpus or max(1.0, sum(node.get("GPU", 0) for node in nodes)))
    part = min(1.0, resources.gpus_per_trial or 1.0)
    if resources.gpu_memory is not None:
        available = int(resources.gpu_memory * part)
        return Capacity(available, CUDA, "resources.gpu_memory", devices)
    memory_bytes = device.get("device_memory_bytes")
    name = str(device.get("device", "the GPU"))
    if memory_bytes is None:
        return None
    return Capacity(int(memory_bytes * part), CUDA, name, devices)


def planned_capacity(resources: ResourcesConfig, *, memory_bytes: int) -> Capacity:
    """The capacity of the hardware that a space names; if it names none, of a machine without GPUs
    that has `memory_bytes`."""
    if resources.gpu_memory is not None:
        devices = int(resources.gpus or 1)
        part = min(1.0, resources.gpus_per_trial or 1.0)
        available = int(resources.gpu_memory * part)
        return Capacity(available, CUDA, "resources.gpu_memory", devices)
    if resources.gpus:
        raise InputError(
            "resources.gpus: how much memory has each? Give resources.gpu_memory, as 40GiB."
        )
    if resources.memory is not None:
        return Capacity(resources.memory, CPU, "resources.memory")
    left = max(0, memory_bytes - CPU_HOST_MEMORY_BYTES)
    return Capacity(left, CPU, "this machine, less what a host takes for itself")


def _of_cpus(
    resources: ResourcesConfig,
    device: Mapping[str, Any],
    nodes: Sequence[Mapping[str, float]],
) -> Capacity | None:
    if resources.gpu_memory is not None:
        raise InputError(
            "resources.gpu_memory: the cluster has no GPU. Leave it out to run here, or plan for "
            "other hardware with --dry-run."
        )
    if resources.memory is not None:
        return Capacity(resources.memory, CPU, "resources.memory")
    memory_bytes = max((int(node.get("memory", 0)) for node in nodes), default=0)
    memory_bytes = memory_bytes or int(device.get("device_memory_bytes", 0))
    if memory_bytes <= CPU_HOST_MEMORY_BYTES:
        return None
    left = memory_bytes - CPU_HOST_MEMORY_BYTES
    return Capacity(left, CPU, "Ray's memory for a host, less its own")


CPU_HOST_MEMORY_BYTES = 1 << 30  # of a host's process with its imports, before it loads a model
