"""A process's share of a GPU: torch refuses allocations beyond it, and only those."""

from __future__ import annotations

import pytest
import torch

from trainables.resources.gpu_overhead import CUDA_CONTEXT_BYTES
from trainables.resources.gpu_share import held_on_gpu, limit_gpu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

MEBIBYTE = 1 << 20


def test_what_exceeds_the_share_fails_and_what_does_not_is_untouched() -> None:
    before = held_on_gpu()
    limit_gpu(before + 256 * MEBIBYTE)
    try:
        within = torch.zeros(128 * MEBIBYTE, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(512 * MEBIBYTE, dtype=torch.uint8, device="cuda")
        assert int(within.sum()) == 0
        assert held_on_gpu() >= CUDA_CONTEXT_BYTES + 128 * MEBIBYTE
    finally:
        limit_gpu(None)
    assert torch.zeros(512 * MEBIBYTE, dtype=torch.uint8, device="cuda").numel() > 0
