"""What torch's allocator gave out and took back, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


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
