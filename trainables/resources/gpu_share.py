"""A process's share of a GPU: the bytes that it holds, and a limit to what it allocates."""

from __future__ import annotations

import torch

from trainables.resources.gpu_overhead import CUDA_CONTEXT_BYTES
from trainables.resources.out_of_memory import free_memory


def held_on_gpu() -> int:
    """Bytes of the GPU that this process holds after freeing unused memory."""
    free_memory()
    return CUDA_CONTEXT_BYTES + torch.cuda.memory_reserved()


def limit_gpu(share_bytes: int | None) -> None:
    """Limits torch's allocator to the share without the CUDA context; None: removes the limit.

    Beyond the limit the allocator raises torch.OutOfMemoryError. What CUDA's libraries allocate
    themselves is not limited.
    """
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.set_per_process_memory_fraction(share_fraction(share_bytes, total))


def share_fraction(share_bytes: int | None, total_bytes: int) -> float:
    """What torch's allocator may allocate, as a fraction of the device's memory."""
    if share_bytes is None:
        return 1.0
    return min(1.0, max(0.0, (share_bytes - CUDA_CONTEXT_BYTES) / total_bytes))
