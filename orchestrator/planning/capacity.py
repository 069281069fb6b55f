"""Capacity: what memory a trial may take on its device, and where that is known from. LIGHT."""

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
    """Bytes that one trial may take on each device, how many devices there are, and in words
    where that is known from."""

    bytes: int
    device_type: str  # CPU or CUDA
    source: str
    devices: int = 1


def cluster_capacity(
    resources: ResourcesConfig,
    device: Mapping[str, Any],
    nodes: Sequence[Mapping[str, float]],
) -> Capacity | None:
    """Of the cluster whose first host describes its `device`; None where it does not say.

    `nodes`: the resources of Ray's nodes, those that it can still start among them. Raises
    InputError for GPU memory that is planned with where there is no GPU.
    """
    kind = str(device.get("device_type", CPU))
    if kind != CUDA:
        return _of_cpus(resources, device, nodes)
    devices = int(resources.gpus or max(1.0, sum(node.get("GPU", 0) for node in nodes)))
    part = min(1.0, resources.gpus_per_trial or 1.0)
    if resources.gpu_memory is not None:
        given = int(resources.gpu_memory * part)
        return Capacity(given, CUDA, "resources.gpu_memory", devices)
    has = device.get("device_memory_bytes")
    name = str(device.get("device", "the GPU"))
    return None if has is None else Capacity(int(has * part), CUDA, name, devices)


def planned_capacity(resources: ResourcesConfig, *, memory_bytes: int) -> Capacity:
    """Of the hardware that a space plans for; where it names none, a machine without GPUs that
    has `memory_bytes`."""
    if resources.gpu_memory is not None:
        devices = int(resources.gpus or 1)
        part = min(1.0, resources.gpus_per_trial or 1.0)
        given = int(resources.gpu_memory * part)
        return Capacity(given, CUDA, "resources.gpu_memory", devices)
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
    has = max((int(node.get("memory", 0)) for node in nodes), default=0)
    has = has or int(device.get("device_memory_bytes", 0))
    if has <= CPU_HOST_MEMORY_BYTES:
        return None
    return Capacity(has - CPU_HOST_MEMORY_BYTES, CPU, "Ray's memory for a host, less its own")


CPU_HOST_MEMORY_BYTES = 1 << 30  # a host's process with its imports, before it loads a model
