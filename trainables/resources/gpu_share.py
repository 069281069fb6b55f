"""A process's share of a GPU that others use too: what it holds, and a limit to what it takes."""

from __future__ import annotations

import torch

from trainables.resources.gpu_overhead import CUDA_CONTEXT_BYTES
from trainables.resources.out_of_memory import free_memory


def held_on_gpu() -> int:
    """Bytes that this process takes of its GPU, after giving back what nothing refers to."""
    free_memory()
    return CUDA_CONTEXT_BYTES + torch.cuda.memory_reserved()


def limit_gpu(share_bytes: int | None) -> None:
    """From now on torch's allocator gives out so much, less the context's part; None: all.

    Beyond it the allocator raises torch.OutOfMemoryError; what CUDA's libraries take for
    themselves is not limited.
    """
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(share_fraction(share_bytes, total))


def share_fraction(share_bytes: int | None, total_bytes: int) -> float:
    """What torch's allocator may give out, as a fraction of the device's memory."""
    if share_bytes is None:
        return 1.0
    return min(1.0, max(0.0, (share_bytes - CUDA_CONTEXT_BYTES) / total_bytes))
