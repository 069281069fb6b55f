"""PlannedDevice: what a dry run plans for, the device that the space names or this machine's."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import Any

from orchestrator.config.sections import ResourcesConfig
from orchestrator.planning.capacity import CPU, CUDA, Capacity, planned_capacity

ASSUMED_UTILISATION = 0.3  # share of the peak that fine-tuning often reaches; not measured
PEAK_FLOPS = {  # a second, dense, in bfloat16 (float16 where there is none): NVIDIA's data sheets
    "T4": 65e12,
    "V100": 125e12,
    "L4": 121e12,
    "L40S": 362e12,
    "A100": 312e12,
    "A100-40G": 312e12,
    "A100-80G": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}
_WITHOUT_BFLOAT16 = ("P100", "V100", "T4", "K80", "P4")


@dataclass(frozen=True)
class PlannedDevice:
    """A device as `models.describe_device` describes one, as far as planning needs, and its
    capacity."""

    facts: dict[str, Any]
    capacity: Capacity

    @property
    def peak_flops(self) -> float | None:
        """FLOPs per second of one device, if the space names a known one."""
        return PEAK_FLOPS.get(str(self.facts.get("accelerator_type")))


def planned_device(resources: ResourcesConfig) -> PlannedDevice:
    """The device to plan for; raises InputError for GPUs of unknown memory."""
    here = None if resources.gpu_memory or resources.gpus or resources.memory else _gpu_here()
    if here is not None:
        name, memory_bytes, count = here
        capacity = Capacity(memory_bytes, CUDA, name, resources.gpus or count)
    else:
        name = resources.accelerator_type or "the planned GPU"
        capacity = planned_capacity(resources, memory_bytes=_memory_here())
    if capacity.device_type == CPU:
        facts = {"device": "a CPU", "bfloat16": False, "compute_dtype": "float32"}
    else:
        bfloat16 = not any(old in name for old in _WITHOUT_BFLOAT16)
        dtype = "bfloat16" if bfloat16 else "float16"
        facts = {"device": name, "bfloat16": bfloat16, "compute_dtype": dtype}
    kind = {"device_type": capacity.device_type, "accelerator_type": resources.accelerator_type}
    return PlannedDevice({**facts, **kind, "device_memory_bytes": capacity.bytes}, capacity)


def _memory_here() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpu_here() -> tuple[str, int, int] | None:
    """Name, bytes and number of this machine's GPUs; None without a GPU or without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        lines = [line.rpartition(",") for line in found.stdout.splitlines() if line.strip()]
        name, _, mebibytes = lines[0]
        return name.strip(), int(mebibytes) << 20, len(lines)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
