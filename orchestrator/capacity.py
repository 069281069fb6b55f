"""Capacity: what memory a trial may take on its device, and where that is known from. LIGHT."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.host_shape import CPU_HOST_MEMORY_BYTES
from trainables.errors import InputError
from trainables.spec.checks import is_finite

if TYPE_CHECKING:
    from orchestrator.config.sections import ResourcesConfig

CPU, CUDA = "cpu", "cuda"
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


@dataclass(frozen=True)
class Capacity:
    """Bytes that one trial may take on each device, how many devices there are, and in words
    where that is known from."""

    bytes: int
    device_type: str  # CPU or CUDA
    source: str
    devices: int = 1


def size(value: Any) -> str | None:
    """Accepts sizes: a whole number of bytes, or as 40GiB, 512 MiB, 80GB."""
    if parsed_size(value) is not None:
        return None
    return f"got {value!r}; needs a size, as 40GiB or 512MiB, or a whole number of bytes."


def accelerator_type(value: Any) -> str | None:
    """Accepts names, as Ray has them: A100, H100, T4."""
    fits = isinstance(value, str) and value.strip() != ""
    return None if fits else f"got {value!r}; needs Ray's name of a GPU, as A100 or H100."


def parsed_size(value: Any) -> int | None:
    """The bytes of a size that `size` accepts; None for anything else."""
    if is_finite(value):
        return int(value) if value > 0 and value == int(value) else None
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS.get(match[2].upper()) if match else None
    found = None if match is None or unit is None else int(float(match[1]) * unit)
    return found or None


def in_words(amount: float) -> str:
    """Bytes as people say them: 39.6 GiB."""
    for name in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.3g} {name}" if amount < 100 else f"{amount:.0f} {name}"
        amount /= 1024
    return f"{amount:.1f} GiB"


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
