"""Peak memory: of tensors as torch's allocator counts them, of the process as the kernel does.

Configurations are compared by tensor memory; a process's memory also holds libraries and caches.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainables.models.tensors import tensor_bytes
from trainables.resources.allocator import allocator_events, highest_sum, of_own_blocks

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5)


class PeakMemory:
    """The peak in bytes of a model's tensors and of those that the work on them allocates.

    On CUDA it is read from the allocator's counters. On a CPU it is computed from the allocator's
    events, which are too slow to record always: only `representative` work counts there, which
    must include the largest batch. Other tensors (the optimizer's state, during an evaluation)
    count only `with_everything`, which is meant for training on CUDA; on a CPU `measure_training`
    creates that state inside the measured work.

    `device_peaks`, empty on a CPU, holds diagnostics in bytes: what torch's allocator had allocated
    and reserved, and what all processes on the device together used after the work (as nvidia-smi
    shows it).
    """

    def __init__(
        self, model: Any, device: torch.device, *, at_least: int = 0, with_everything: bool = False
    ) -> None:
        self._held_bytes = tensor_bytes(model)
        self._device = device
        self._with_everything = with_everything
        self.bytes = at_least
        self.device_peaks: dict[str, int] = {}

    @contextmanager
    def holding(self, more_bytes: int) -> Iterator[None]:
        """A context in which tensors of so many bytes, made before it, count beside the model."""
        self._held_bytes += more_bytes
        try:
            yield
        finally:
            self._held_bytes -= more_bytes

    @contextmanager
    def measure(self, *, representative: bool) -> Iterator[None]:
        """A context that raises `bytes` to the peak of the work inside, if that is higher."""
        if self._device.type == "cuda":
            elsewhere = torch.cuda.memory_allocated(self._device) - self._held_bytes
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            peak = torch.cuda.max_memory_allocated(self._device)
            self._raise_to(peak if self._with_everything else peak - elsewhere)
            self.device_peaks = greatest(self.device_peaks, _device_bytes(self._device))
        elif representative:
            with allocator_events() as events:
                yield
            self._raise_to(self._held_bytes + highest_sum(of_own_blocks(events)))
        else:
            yield

    def _raise_to(self, peak_bytes: int) -> None:
        self.bytes = max(self.bytes, peak_bytes)


def greatest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """For each name the greater of its numbers in the two mappings."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def reset_process_peak() -> None:
    """Resets `process_peak_memory_bytes`; does nothing if the kernel does not allow it."""
    if os.access(_CLEAR_REFS, os.W_OK):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def process_peak_memory_bytes() -> int:
    """The process's peak resident memory since `reset_process_peak`.

    Without Linux's /proc: since the process started.
    """
    if _STATUS.exists():
        lines = _STATUS.read_text().splitlines()
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return peaks[0]
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_bytes(device: torch.device) -> dict[str, int]:
    free, total = torch.cuda.mem_get_info(device)
    return {
        "allocated_peak_memory_bytes": torch.cuda.max_memory_allocated(device),
        "reserved_peak_memory_bytes": torch.cuda.max_memory_reserved(device),
        "device_peak_memory_bytes": total - free,
    }
