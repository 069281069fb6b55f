"""Attention: which of torch's kernels runs on a CUDA device, and what a CPU's allocates.

On a CPU torch itself chooses the kernel, also for fake tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from trainables.resources.allocator import allocator_events, highest_sum

_aten = torch.ops.aten
_HALF = (torch.bfloat16, torch.float16)
_EFFICIENT = (*_HALF, torch.float32)
_LARGEST_FLASH_HEAD = 256
_BIAS_ALIGNMENT = 16  # entries of a row of a mask


class Backend(Enum):
    """A kernel of torch's attention: two that keep no scores, and the formula as it is written."""

    FLASH = "flash"
    EFFICIENT = "efficient"
    MATH = "math"


@dataclass(frozen=True)
class Attention:
    """The arguments of `scaled_dot_product_attention`; tensors are (batch, heads, length, size)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None = None
    dropout: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.query, self.key, self.value

    @property
    def backend(self) -> Backend:
        """The first backend whose conditions hold, on compute capability 8.0 and above.

        torch 2.13: ATen/native/transformers/sdp_utils_cpp.h and cuda/sdp_utils.cpp; that key heads
        are shared (`enable_gqa`) only in flash and math is said by the documentation of
        `scaled_dot_product_attention`. cuDNN's kernel, which comes before flash on compute
        capability 9 and 10, keeps what flash keeps and is not told apart.
        """
        if self._is_fusable and self._fits_flash:
            return Backend.FLASH
        if self._is_fusable and self._fits_efficient:
            return Backend.EFFICIENT
        return Backend.MATH

    @property
    def _is_fusable(self) -> bool:
        """The conditions that both fused kernels share."""
        parts = self.parts
        return (
            all(part.dim() == 4 for part in parts)
            and len({part.dtype for part in parts}) == 1
            and len({part.shape[0] for part in parts}) == 1
            and all(part.shape[2] > 0 for part in parts)
            and all(part.stride(-1) == 1 for part in parts)
            and (self.mask is None or self.mask.stride(-1) == 1)
        )

    @property
    def _fits_flash(self) -> bool:
        query, key, _ = self.parts
        sizes = {part.shape[-1] for part in self.parts}
        return (
            self.mask is None
            and query.dtype in _HALF
            and len(sizes) == 1
            and max(sizes) <= _LARGEST_FLASH_HEAD
            and not (self.is_causal and query.shape[2] != key.shape[2])
            and (self._has_equal_heads or (self.enable_gqa and self._shares_key_heads))
        )

    @property
    def _fits_efficient(self) -> bool:
        query, key, value = self.parts
        unit = 8 if query.dtype in _HALF else 4  # 16 bytes, by which its matmuls are aligned
        return (
            query.dtype in _EFFICIENT
            and query.shape[-1] == key.shape[-1]
            and query.shape[-1] % unit == 0
            and value.shape[-1] % unit == 0
            and self._has_equal_heads
        )

    @property
    def _has_equal_heads(self) -> bool:
        return len({part.shape[1] for part in self.parts}) == 1

    @property
    def _shares_key_heads(self) -> bool:
        query, key, value = (part.shape[1] for part in self.parts)
        return key == value and query % key == 0


def cuda_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    *,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`scaled_dot_product_attention` by the kernel that a CUDA device would run.

    Autocast casts its inputs to the 16-bit type, and nothing inside it.
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    given = Attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    with torch.autocast("cpu", enabled=False):
        return _KERNELS[given.backend](given)


def attention_workspace_bytes(query: torch.Tensor, key: torch.Tensor) -> int:
    """Bytes that flash attention on a CPU keeps for its tiles, per thread, and for packed copies of
    16-bit keys and values (ATen/native/cpu/FlashAttentionKernel.cpp)."""
    packed = 2 * key.numel() * key.itemsize if packs_keys(query.dtype) else 0
    return _tile_bytes(query, key) + packed


@functools.cache
def packs_keys(dtype: torch.dtype) -> bool:
    """Whether flash attention on this machine's CPU packs keys and values of a 16-bit type, found
    out by attention over enough keys for that to be worth while."""
    if dtype not in _HALF:
        return False
    length = max(256, 64 * torch.get_num_threads())
    with _disable_current_modes(), torch.no_grad():
        query = torch.ones((1, 1, length, 64), dtype=dtype)
        with allocator_events() as events:
            kept = functional.scaled_dot_product_attention(query, query, query)
    result_bytes = kept.numel() * kept.itemsize + 4 * length  # and a sum per row
    packed = 2 * query.numel() * query.itemsize
    return highest_sum(events) >= result_bytes + _tile_bytes(query, query) + packed


def _tile_bytes(query: torch.Tensor, key: torch.Tensor) -> int:
    length, size = query.shape[-2:]
    rows = min(length, 256 if length >= 768 else 64 if length >= 192 else 32)
    columns = min(512, key.shape[-2])
    tile = rows * columns * (4 + 2 * (query.dtype in _HALF)) + rows * (2 + size) * 4
    return torch.get_num_threads() * tile


def _flash(given: Attention) -> Any:
    return _aten._scaled_dot_product_flash_attention(
        *given.parts, given.dropout, given.is_causal, False, scale=given.scale
    )[0]


def _efficient(given: Attention) -> Any:
    grad = torch.is_grad_enabled()
    return _aten._scaled_dot_product_efficient_attention(
        *given.parts, _bias(given), grad, given.dropout, given.is_causal, scale=given.scale
    )[0]


def _math(given: Attention) -> Any:
    mask = given.mask
    if mask is not None and mask.dtype == torch.bool:
        mask = _additive(mask, given.query.dtype)
    return _aten._scaled_dot_product_attention_math(
        *given.parts,
        mask,
        given.dropout,
        given.is_causal,
        None,
        scale=given.scale,
        enable_gqa=given.enable_gqa,
    )[0]


def _bias(given: Attention) -> torch.Tensor | None:
    """The mask as it is added, its rows padded to the kernel's alignment."""
    if given.mask is None:
        return None
    bias = given.mask
    if bias.dtype == torch.bool:
        bias = _additive(bias, given.query.dtype)
    keys = bias.shape[-1]
    if keys % _BIAS_ALIGNMENT:
        bias = functional.pad(bias, (0, -keys % _BIAS_ALIGNMENT))[..., :keys]
    batch_size, heads, length, _ = given.query.shape
    return bias.expand(batch_size, heads, length, given.key.shape[2])


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Zeros, and minus infinity where a boolean mask is false."""
    blocked = torch.full((), float("-inf"), dtype=dtype)
    return torch.where(mask, torch.zeros((), dtype=dtype), blocked)


_KERNELS: dict[Backend, Callable[[Attention], Any]] = {
    Backend.FLASH: _flash,
    Backend.EFFICIENT: _efficient,
    Backend.MATH: _math,
}
