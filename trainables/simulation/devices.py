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
from trainables.simulation.kernels import CPU_KERNELS, CUDA_KERNELS, Kernel

_HALF = (torch.bfloat16, torch.float16)
_aten = torch.ops.aten


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


def _cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """Flash attention without a mask in a 16-bit type; else memory-efficient attention."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if attn_mask is None and query.dtype in _HALF:
        return _aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
    if enable_gqa and groups > 1:
        key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    bias = None
    if attn_mask is not None:
        blocked = torch.full((), float("-inf"), dtype=query.dtype)
        bias = torch.where(attn_mask, 0.0, blocked).to(query.dtype)
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    grad = torch.is_grad_enabled()
    return _aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, grad, dropout_p, is_causal, scale=scale
    )[0]


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
            "scaled_dot_product_attention": _cuda_attention,
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
