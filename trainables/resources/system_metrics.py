"""System metrics of the worker's node while a trial runs: CPU, memory and GPUs.

The names are those of MLflow's system metrics without the prefix `system/`. The values are not
results of the trial: other processes on the node count too.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]

MEGABYTE = 1e6  # as in MLflow


class SystemSampler:
    """A callable that returns the node's metrics by name; called at each event of a trial.

    cpu_utilization_percentage is the mean over all cores since the last call, or since
    construction. system_memory_usage_* are the node's. gpu_N_memory_usage_* and, if pynvml
    (nvidia-ml-py) is installed, gpu_N_utilization_percentage are those of the N-th GPU that is
    visible to this process, for all processes that use it. A call takes well under a millisecond on
    a CPU.
    """

    def __init__(self) -> None:
        psutil.cpu_percent()  # its first value is meaningless: there is no earlier call
        self._gpus = _visible_gpus()
        self._has_utilization = bool(self._gpus) and _has_utilization()

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
            if self._has_utilization:
                yield f"gpu_{gpu}_utilization_percentage", float(torch.cuda.utilization(gpu))


def _visible_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _has_utilization() -> bool:
    """Whether NVML reports the utilization; in a container or on a MIG slice it may not."""
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
