"""DEVICES: how a kind of device uses memory, one row each.

Fake tensors always are on a CPU, since the torch of a machine without a GPU may support no other
device. A row's `kernels` and `functions` replace what a GPU does differently: which attention
kernel runs, which operations autocast keeps in float32, which algorithm int8 uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from trainables.resources.estimate import Term
from trainables.resources.gpu_overhead import CUBLAS_WORKSPACE_BYTES, CUDA_CONTEXT_BYTES
from trainables.simulation.attention import cuda_attention
from trainables.simulation.kernels import CPU_KERNELS, CUDA_KERNELS, Kernel


@dataclass(frozen=True)
class Device:
    """One kind of device.

    `copies_operands`: operations copy operands whose type or strides they can't use.
    `int8_trains_dequantized`: in training, bitsandbytes multiplies dequantized int8 weights.
    `constants`: bytes that a process takes on the device besides its tensors.
    """

    granularity_bytes: int
    kernels: Mapping[Any, Kernel]
    copies_operands: bool = False
    int8_trains_dequantized: bool = False
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    constants: Mapping[str, Term] = field(default_factory=dict)


@contextlib.contextmanager
def functions_of(device: Device) -> Iterator[None]:
    """Replaces functions of torch.nn.functional by the device's while it is open.

    A TorchFunctionMode is inactive in a backward pass, where checkpointing calls them again.
    """
    original = {name: getattr(functional, name) for name in device.functions}
    try:
        for name, function in device.functions.items():
            setattr(functional, name, function)
        yield
    finally:
        for name, function in original.items():
            setattr(functional, name, function)


@contextlib.contextmanager
def masks_can_be_read() -> Iterator[None]:
    """transformers reads no mask of a fake tensor, but LiveBytes knows what it would read."""
    from transformers import masking_utils

    original = masking_utils.is_tracing
    masking_utils.is_tracing = lambda tensor=None: False
    try:
        yield
    finally:
        masking_utils.is_tracing = original


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `function` in float32 under autocast, as CUDA's autocast does and a CPU's does not."""

    def run(first: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            first = first.float()
            rest = tuple(r.float() if isinstance(r, torch.Tensor) else r for r in rest)
        return function(first, *rest, **named)

    return run


DEVICES: dict[str, Device] = {
    "cpu": Device(
        granularity_bytes=1,
        kernels=CPU_KERNELS,
        copies_operands=True,
        int8_trains_dequantized=True,
    ),
    "cuda": Device(
        granularity_bytes=512,  # c10/cuda/CUDACachingAllocator: kMinBlockSize
        kernels=CUDA_KERNELS,
        functions={
            "scaled_dot_product_attention": cuda_attention,
            "layer_norm": _in_float32(functional.layer_norm),
            "softmax": _in_float32(functional.softmax),
        },
        constants={
            "cuda_context": Term(
                CUDA_CONTEXT_BYTES,
                "assumed: the driver's context and kernels, outside torch's allocator; what "
                "nvidia-smi shows for an idle process. Not measured here.",
            ),
            "cublas_workspace": Term(
                CUBLAS_WORKSPACE_BYTES,
                "torch docs, CUBLAS_WORKSPACE_CONFIG: 32 MiB on compute capability 9, 8 MiB "
                "before; once per process, from torch's allocator",
            ),
        },
    ),
}
