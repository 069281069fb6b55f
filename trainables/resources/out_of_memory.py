"""Out of memory: which errors mean it, and what frees memory after one."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)  # what `memory_errors` lets through
_FAILED_ALLOCATIONS = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


class DoesNotFitError(MemoryError):
    """The trial can't run on this device: its memory or its kind."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Failed allocations that have no class of their own raised as DoesNotFitError: a CPU's, and
    those that CUDA's libraries make themselves. torch.OutOfMemoryError passes as it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(sign in str(error) for sign in _FAILED_ALLOCATIONS):
            raise DoesNotFitError(str(error)) from error
        raise


def free_memory() -> None:
    """Gives back what nothing refers to any more; torch keeps a GPU's memory for itself else."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
