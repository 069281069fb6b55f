"""The allocations and frees of torch's CPU allocator, as the profiler records them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class AllocatorEvent:
    """The allocation of a block of memory, or its free (`changed_bytes` < 0)."""

    address: int
    changed_bytes: int


@contextmanager
def allocator_events() -> Iterator[list[AllocatorEvent]]:
    """Yields a list that holds the events inside the context, in order, once it has ended."""
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
    """Leaves out frees of blocks that were allocated before the first event.

    They happen when an object of an earlier context is dropped, and do not belong to this one.
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
    """The most bytes that were allocated at once, starting at 0."""
    now = highest = 0
    for event in events:
        now += event.changed_bytes
        highest = max(highest, now)
    return highest
