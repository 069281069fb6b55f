"""The GPU memory and utilization in a trial's system metrics."""

from __future__ import annotations

import pytest
import torch

from trainables.resources.system_metrics import SystemSampler

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_what_a_tensor_takes_is_seen() -> None:
    sample = SystemSampler()
    before = sample()["gpu_0_memory_usage_megabytes"]
    tensor = torch.ones(2**28, device="cuda")  # 4 bytes each
    found = sample()
    assert found["gpu_0_memory_usage_megabytes"] - before > 0.9 * tensor.nbytes / 1e6
    assert 0 < found["gpu_0_memory_usage_percentage"] <= 100
    assert 0 <= found.get("gpu_0_utilization_percentage", 0) <= 100
