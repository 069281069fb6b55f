"""Measured memory: tensors through the allocator, the process through the kernel.

Tensor memory is what ranks configurations; a process's memory also holds libraries and caches.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.data.batches import Batch
from trainables.engine import Engine, rng_states, set_rng_states
from trainables.models.tensors import tensor_bytes

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5)


class TensorPeak:
    """The most bytes that a model's tensors and the work on them took at once.

    On CUDA from the allocator's counters. On a CPU from the allocator's events that the profiler
    records, which is too much to record always: there only `representative` stretches count, and
    they must hold the greatest batch. What lives elsewhere (the optimizer's state, during an
    evaluation) counts only `with_everything`, which is for training on CUDA; on a CPU
    `measure_training` makes that state inside its stretch.

    `device_peaks`, empty on a CPU, are diagnostics by name, in bytes: what torch's allocator gave
    out and what it held for itself (allocated, reserved), and what all users of the device
    together took when a stretch had ended (device; what nvidia-smi shows).
    """

    def __init__(
        self, model: Any, device: torch.device, *, at_least: int = 0, with_everything: bool = False
    ) -> None:
        self._model_bytes = tensor_bytes(model)
        self._device = device
        self._with_everything = with_everything
        self.bytes = at_least
        self.device_peaks: dict[str, int] = {}

    @contextmanager
    def over(self, *, representative: bool) -> Iterator[None]:
        """Raises `bytes` to the peak of what runs inside, if that is higher."""
        if self._device.type == "cuda":
            elsewhere = torch.cuda.memory_allocated(self._device) - self._model_bytes
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            peak = torch.cuda.max_memory_allocated(self._device)
            self._raise_to(peak if self._with_everything else peak - elsewhere)
            self.device_peaks = greatest(self.device_peaks, _device_bytes(self._device))
        elif representative:
            with allocator_events() as events:
                yield
            self._raise_to(self._model_bytes + highest_sum(of_own_blocks(events)))
        else:
            yield

    def _raise_to(self, peak_bytes: int) -> None:
        self.bytes = max(self.bytes, peak_bytes)


def measure_training(
    engine: Engine, longest: Batch, *, accumulated: bool, peak: TensorPeak
) -> None:
    """Raises `peak` to what optimizer steps on the longest micro-batch take; undoes them after.

    A first step on one row makes the optimizer's state, which the second has to hold too; with
    accumulation the second also holds gradients while it makes more. Spends `engine`: it must not
    train afterwards. Parameters and random generators are as before, to the bit.
    """
    before = {name: parameter.detach().clone() for name, parameter in engine.parameters.items()}
    states = rng_states(engine.device)
    row = Batch(longest.input_ids[:1], longest.attention_mask[:1], longest.labels[:1])
    try:
        with peak.over(representative=True):
            for batches in ([row], [longest] * (2 if accumulated else 1)):
                for batch in batches:
                    engine.accumulate(batch, completion_tokens=1)
                engine.step(0)
    finally:  # it may not fit
        engine.drop_gradients()
        with torch.no_grad():
            for name, parameter in engine.parameters.items():
                parameter.copy_(before[name])
        set_rng_states(states, engine.device)


def greatest(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The greater of two numbers of each name; a name that only one has keeps its number."""
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def reset_process_peak() -> None:
    """Makes `process_peak_memory_bytes` start again; does nothing where that can't be done."""
    if os.access(_CLEAR_REFS, os.W_OK):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def process_peak_memory_bytes() -> int:
    """The process's greatest resident memory since `reset_process_peak`.

    Without Linux's /proc since the process began.
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


@dataclass(frozen=True)
class AllocatorEvent:
    """A block that a CPU's allocator gave out or (`changed_bytes` < 0) took back."""

    address: int
    changed_bytes: int


@contextmanager
def allocator_events() -> Iterator[list[AllocatorEvent]]:
    """What a CPU's allocator gave out and took back inside, in order; filled in at the end."""
    found: list[AllocatorEvent] = []
    activities = [torch.profiler.ProfilerActivity.CPU]
    profile = torch.profiler.profile(activities=activities, profile_memory=True)
    with profile:
        yield found
    results: Any = profile.profiler
    nodes = list(results.kineto_results.experimental_event_tree())
    allocations = []
    while nodes:
        node = nodes.pop()
        nodes.extend(node.children)
        if node.tag == torch._C._profiler._EventType.Allocation:
            allocations.append(node)
    for node in sorted(allocations, key=lambda node: node.start_time_ns):
        found.append(AllocatorEvent(node.extra_fields.ptr, node.extra_fields.alloc_size))


def of_own_blocks(events: Iterable[AllocatorEvent]) -> Iterator[AllocatorEvent]:
    """Without the ends of blocks that were there before: those come whenever something lets go of
    what an earlier stretch had made, and are not this one's.
    """
    own: set[int] = set()
    for event in events:
        if event.changed_bytes > 0:
            own.add(event.address)
        elif event.address not in own:
            continue
        else:
            own.remove(event.address)
        yield event


def highest_sum(events: Iterable[AllocatorEvent]) -> int:
    """The most that was given out at once, beginning at 0."""
    now = highest = 0
    for event in events:
        now += event.changed_bytes
        highest = max(highest, now)
    return highest
