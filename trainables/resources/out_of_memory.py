"""Out-of-memory errors: which they are, and how to free memory after one."""

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
    """The trial cannot run on this device, because of its memory or its type."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns failed allocations that are plain RuntimeErrors into DoesNotFitError.

    Those are failures on a CPU and in CUDA's libraries. torch.OutOfMemoryError is left as it is.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if any(sign in str(error) for sign in _FAILED_ALLOCATIONS):
            raise DoesNotFitError(str(error)) from error
        raise


def free_memory() -> None:
    """Frees unreferenced objects, and on a GPU the memory that torch caches."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
