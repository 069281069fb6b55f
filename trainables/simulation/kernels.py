"""Kernels: what runs inside operations that fake tensors treat as one, by device; FLOPs of all.

The kernels of bitsandbytes dequantize weights and hold intermediate results that no dispatch mode
sees. On a CPU most of them are Python, and run on fake tensors as they are installed. The others,
and those of CUDA, which need a GPU's library, are replaced by functions that allocate the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from trainables.models.imports import without_compiler

with without_compiler():  # these register operations
    import bitsandbytes  # noqa: F401
    from transformers.integrations import moe  # noqa: F401

Kernel = Callable[..., Any]

_aten = torch.ops.aten
_bnb = torch.ops.bitsandbytes
_grouped_fallback = torch.ops.transformers.grouped_mm_fallback  # where torch's can't be used
_grouped_fallback_backward = torch.ops.transformers.grouped_mm_fallback_backward


def _dense(a: torch.Tensor, shape: Sequence[int], *rest: Any, **named: Any) -> int:
    """FLOPs of a matmul of `a` (..., inner) with a quantized weight (outer, inner), as if dense."""
    del rest, named
    return 2 * a.numel() * int(shape[0])


def _gemm_4bit(
    a: torch.Tensor, b: torch.Tensor, shape: Sequence[int], *rest: Any, **named: Any
) -> int:
    del b, rest, named
    return _dense(a, shape)


def _int8(a: torch.Tensor, b: torch.Tensor, *rest: Any, **named: Any) -> int:
    del rest, named
    return _dense(a, b.shape)


def _int8_mixed(
    a: torch.Tensor, ca: torch.Tensor, cb: torch.Tensor, *rest: Any, **named: Any
) -> int:
    del ca, rest, named
    return _dense(a, cb.shape)


def _grouped(a: torch.Tensor, b: torch.Tensor, *rest: Any, **named: Any) -> int:
    """FLOPs of a matmul in groups: each row, as a token routed to an expert, is in one group."""
    del rest, named
    rows, columns = (a.shape[-2], b.numel()) if b.dim() == 2 < a.dim() else (a.numel(), b.shape[-1])
    return 2 * rows * columns


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    del rest, named
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]


def _attention_backward(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any
) -> int:
    del rest, named
    shapes = (part.shape for part in (grad, query, key, value))
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _bnb.gemm_4bit: _gemm_4bit,
    _bnb.gemv_4bit: _gemm_4bit,
    _bnb.int8_linear_matmul: _int8,
    _bnb.int8_scaled_mm: _int8,
    _bnb.int8_mixed_scaled_mm: _int8_mixed,
    _aten._grouped_mm: _grouped,
    _grouped_fallback: _grouped,
    _grouped_fallback_backward: lambda a, b, offsets, gradient, **named: 2 * _grouped(a, b),
    _aten._int_mm: lambda a, b, **named: 2 * a.numel() * b.shape[-1],
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def _gemm_4bit_unfused(a: torch.Tensor, *given: Any, bias: Any = None, **nested: Any) -> Any:
    """Dequantizes the whole weight, and first its scales if they are quantized too."""
    shape = given[1]
    quantized_scales = nested.get("absmax_8bit")
    if quantized_scales is None:
        return functional.linear(a, torch.empty(tuple(shape), dtype=a.dtype), bias)
    scales = torch.empty_like(quantized_scales, dtype=torch.float32)
    shifted = scales + nested["absmax_offset"]
    weight = torch.empty(tuple(shape), dtype=a.dtype)
    result = functional.linear(a, weight, bias)
    del scales, shifted, weight
    return result


def _int8_quantize_cpu(a: torch.Tensor, threshold: float = 0.0) -> Any:
    """Scales per row in float32; no activation is assumed to exceed the threshold."""
    outliers = a.abs() >= threshold if threshold else None
    columns = torch.empty(0, dtype=torch.int64) if threshold else None
    scales = torch.max(a.abs(), dim=1).values.float()
    values = torch.round(a * (127.0 / scales.unsqueeze(-1))).to(torch.int8)
    del outliers
    return values, scales, columns


def _int8_quantize_cuda(a: torch.Tensor, threshold: float = 0.0) -> Any:
    scales = torch.empty(a.numel() // a.shape[-1])
    values = torch.empty(a.shape, dtype=torch.int8)
    if not threshold:
        return values, scales, None
    (a.abs() >= threshold).any()
    return values, scales, torch.empty(0, dtype=torch.int64)


def _int8_matmul_cpu(a: torch.Tensor, *given: Any, **named: Any) -> Any:
    """Without AVX512 both operands are converted to float32 first."""
    ca, cb, sca, scb, bias = _int8_operands(given, named)
    if _HAS_AVX512:
        product = torch._int_mm(ca, cb.t())
    else:
        product = torch.matmul(ca.float(), cb.float().t()).to(torch.int32)
    scaled = product * (sca.unsqueeze(-1) * scb.unsqueeze(0)) * 6.2e-05
    if bias is not None:
        scaled += bias
    return scaled.to(a.dtype), torch.empty(0, dtype=a.dtype)


def _int8_matmul_cuda(a: torch.Tensor, *given: Any, **named: Any) -> Any:
    """The kernel's result is float16, whatever the type of `a`."""
    ca, cb, *_ = _int8_operands(given, named)
    product = torch.empty((ca.shape[0], cb.shape[0]), dtype=torch.int32)
    scaled = torch.empty_like(product, dtype=torch.float16)
    return scaled.to(a.dtype), torch.empty(0, dtype=a.dtype)


def _int8_operands(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Values and scales of both operands, and the bias, in the order of the schema."""
    ca, cb, sca, scb, *rest = given
    bias = rest[1] if len(rest) > 1 else named.get("bias")
    return ca, cb, sca, scb, bias


def _grouped_mm(
    a: torch.Tensor, b: torch.Tensor, offsets: torch.Tensor | None = None, *rest: Any, **named: Any
) -> torch.Tensor:
    """The result alone. torch's own function for fake tensors knows bfloat16 only."""
    del rest
    shape = [a.shape[-2], b.shape[-1]]
    if a.dim() == b.dim():
        groups = len(a) if offsets is None else len(offsets)
        shape = [groups, *shape]
    return a.new_empty(shape, dtype=named.get("out_dtype"))


_HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"

CPU_KERNELS: dict[Any, Kernel] = {
    _aten._grouped_mm.default: _grouped_mm,
    _bnb.gemm_4bit.default: _gemm_4bit_unfused,
    _bnb.int8_vectorwise_quant.default: _int8_quantize_cpu,
    _bnb.int8_mixed_scaled_mm.default: _int8_matmul_cpu,
}
CUDA_KERNELS: dict[Any, Kernel] = {
    _aten._grouped_mm.default: _grouped_mm,
    _bnb.gemm_4bit.default: _gemm_4bit_unfused,
    _bnb.int8_vectorwise_quant.default: _int8_quantize_cuda,
    _bnb.int8_mixed_scaled_mm.default: _int8_matmul_cuda,
}
