"""What the machine under a trial is doing: CPU, memory and GPUs of the worker's own node. LIGHT.

Named as MLflow names its system metrics, without their `system/`. They are no results: they say
what else went on while a trial ran.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

MEGABYTE = 1e6  # MLflow's


class SystemSampler:
    """Called, it gives the node's state by name; made when the trial starts, asked at each event.

    cpu_utilization_percentage is the mean over all cores since it was asked before, at first since
    it was made; system_memory_usage_* is the node's; gpu_N_memory_usage_* and, where pynvml is
    installed (nvidia-ml-py), gpu_N_utilization_percentage are of the N-th GPU that this process
    sees, all its users together. A call takes well under a millisecond on a CPU.
    """

    def __init__(self) -> None:
        psutil.cpu_percent()  # its first answer has nothing to compare with
        self._gpus = _visible_gpus()
        self._can_ask_utilization = bool(self._gpus) and _has_utilization()

    def __call__(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        found = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / MEGABYTE,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
        }
        return {**found, **dict(self._of_gpus())}

    def _of_gpus(self) -> Iterator[tuple[str, float]]:
        if not self._gpus:
            return
        import torch

        for gpu in range(self._gpus):
            free, total = torch.cuda.mem_get_info(gpu)
            yield f"gpu_{gpu}_memory_usage_megabytes", (total - free) / MEGABYTE
            yield f"gpu_{gpu}_memory_usage_percentage", (total - free) / total * 100
            if self._can_ask_utilization:
                yield f"gpu_{gpu}_utilization_percentage", float(torch.cuda.utilization(gpu))


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_utilization() -> bool:
    """Whether the driver's own library can be asked; a container or a slice may forbid it."""
    import torch

    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return False
    try:
        torch.cuda.utilization(0)
    except (nvml.NVMLError, RuntimeError):
        return False
    return True
