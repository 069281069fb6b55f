"""Operations whose memory fake tensors would get wrong: what LiveBytes runs or counts instead.

The backward pass adds up gradients in place, the result of some operations depends on data, and a
CPU's operations copy operands that they can't use as they are.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import _disable_current_modes

from trainables.resources.allocator import allocator_events, highest_sum
from trainables.simulation.attention import attention_workspace_bytes

_aten = torch.ops.aten
_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu.default
_ENGINE = "_engine_run_backward"  # the Python function that runs autograd's own operations
_SOLE_TENSOR, _SOLE_STORAGE = 4, 2  # use counts of a sole owner, as a dispatch mode sees them


class Live(Protocol):
    """What the replacements need of `trainables.simulation.live_bytes.LiveBytes`."""

    truth: bool

    def true_count(self, mask: torch.Tensor) -> int: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *exception: Any) -> Any: ...


def workspace_bytes(func: Any, args: Any) -> int:
    """What an operation on a CPU allocates besides its result, and frees before it returns."""
    if func in _ELEMENTWISE and len(args) > 1 and isinstance(args[1], torch.Tensor):
        return _cast_bytes(args[0], args[1], in_place=func in _IN_PLACE)
    if func in _MATMULS:
        return sum(map(_copied_bytes, args[:2])) + _apart_bytes(*args[:2])
    if func is _aten.addmm.default:
        return _apart_bytes(*args[1:3])
    if func is _ATTENTION:
        return attention_workspace_bytes(args[0], args[1])
    return 0


def _add(live: Live, args: Any, kwargs: Any) -> Any:
    """Autograd adds to a gradient in place if it is the only owner, but not to a fake one."""
    old = args[0]
    if _from_engine() and not kwargs and _is_sole(old) and old.shape == args[1].shape:
        return old.add_(args[1])
    return _aten.add.Tensor(*args, **kwargs)


def _put(live: Live, args: Any, kwargs: Any) -> Any:
    """Autograd fills the gradient of an indexed tensor in place, but not a fake one."""
    if _from_engine() and not kwargs:
        return _aten.index_put_.default(*args)
    return _aten.index_put.default(*args, **kwargs)


def _number(live: Live, args: Any, kwargs: Any) -> Any:
    return live.truth if args[0].dtype == torch.bool else 0


def _nonzero(live: Live, args: Any, kwargs: Any) -> Any:
    mask = args[0]
    return mask.new_empty((live.true_count(mask), mask.dim()), dtype=torch.int64)


def _index(live: Live, args: Any, kwargs: Any) -> Any:
    source, indices = args
    mask = indices[0]
    if len(indices) != 1 or mask is None or mask.dtype != torch.bool:
        return _aten.index.Tensor(*args, **kwargs)
    with live:
        found = mask.nonzero().unbind(1)
    return _aten.index.Tensor(source, found)


def _safe_softmax(live: Live, args: Any, kwargs: Any) -> Any:
    """What that operation of the attention formula allocates: it looks for rows that are masked
    whole, and fills them in place."""
    scores, dim = args[:2]
    with live:
        found = torch.softmax(scores, dim, dtype=args[2] if len(args) > 2 else kwargs.get("dtype"))
        is_masked = scores == float("-inf")
        rows = is_masked.all(dim, keepdim=True)
        return found.masked_fill_(rows, 0.0)


def _cast_bytes(first: torch.Tensor, second: torch.Tensor, *, in_place: bool) -> int:
    """Bytes of operands that are cast to their common type, and of a result that is cast back."""
    if first.dtype == second.dtype or not (first.dim() and second.dim()):
        return 0
    common = torch.result_type(first, second)
    cast = [part for part in (first, second) if part.dtype != common]
    if in_place and first.dtype != common:
        cast.append(first)
    return sum(common.itemsize * part.numel() for part in cast)


def _copied_bytes(matrix: torch.Tensor) -> int:
    """Bytes of a copy of an operand of a matmul, if it is copied.

    oneDNN multiplies only what is contiguous or whose transpose is (ATen/native/mkldnn/
    Matmul.cpp), BLAS any matrix whose rows or columns are (ATen/native/LinearAlgebra.cpp).
    """
    *batch, rows, columns = matrix.shape
    if matrix.dtype in onednn_types():
        transposed = (rows * columns, 1, rows) if batch else (1, rows)
        is_usable = matrix.is_contiguous() or matrix.stride() == transposed
    else:
        along, across = matrix.stride()[-2:]
        by_rows, by_columns = across == 1 and along >= columns, along == 1 and across >= rows
        is_usable = bool(batch) or by_rows or by_columns or 1 in {rows, columns}
    return 0 if is_usable else matrix.numel() * matrix.itemsize


def _apart_bytes(first: torch.Tensor, second: torch.Tensor) -> int:
    """Bytes of the float32 result that oneDNN makes beside a 16-bit one, for each of its threads,
    where the processor has no instructions for the type."""
    if not _adds_up_apart(first.dtype):
        return 0
    at_once = min(torch.get_num_threads(), first.shape[0]) if first.dim() > 2 else 1
    return 4 * at_once * first.shape[-2] * second.shape[-1]


@functools.cache
def _adds_up_apart(dtype: torch.dtype) -> bool:
    if dtype == torch.float32 or dtype not in onednn_types():
        return False
    with _disable_current_modes(), torch.no_grad():
        matrix = torch.ones((512, 64), dtype=dtype)
        with allocator_events() as events:
            torch.mm(matrix, matrix.t())
    return highest_sum(events) >= (4 + dtype.itemsize) * len(matrix) ** 2


@functools.cache
def onednn_types() -> frozenset[torch.dtype]:
    """The types whose matrices oneDNN multiplies on this machine, found out by multiplying some."""
    asked: dict[torch.dtype, Callable[[], bool]] = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
        torch.float32: torch.backends.mkldnn.is_acl_available,  # on aarch64
    }
    return frozenset(dtype for dtype, may_be in asked.items() if may_be() and _uses_onednn(dtype))


def _uses_onednn(dtype: torch.dtype) -> bool:
    """Whether a matrix that is repeated for each row of a batch is copied for each of them."""
    with _disable_current_modes(), torch.no_grad():
        rows = torch.ones((4, 8, 64), dtype=dtype)[:, -2:]
        repeated = torch.ones((64, 64), dtype=dtype).expand(4, 64, 64)
        with allocator_events() as events:
            torch.bmm(rows, repeated)
    return highest_sum(events) >= repeated.numel() * repeated.itemsize


def _from_engine() -> bool:
    frame = sys._getframe(3)
    for _ in range(3):
        if frame.f_code.co_name == _ENGINE:
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def _is_sole(tensor: torch.Tensor) -> bool:
    storage = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    holders: int = tensor._use_count()  # type: ignore[attr-defined]
    return holders <= _SOLE_TENSOR and storage <= _SOLE_STORAGE


_MATMULS = {_aten.mm.default, _aten.bmm.default}
_IN_PLACE = {getattr(_aten, name).Tensor for name in ("add_", "sub_", "mul_", "div_")}
_ELEMENTWISE = _IN_PLACE | {getattr(_aten, name).Tensor for name in ("add", "sub", "mul", "div")}
SPECIAL_OPERATIONS: dict[Any, Callable[[Live, Any, Any], Any]] = {
    _aten.add.Tensor: _add,
    _aten.index_put.default: _put,
    _aten._local_scalar_dense.default: _number,
    _aten.nonzero.default: _nonzero,
    _aten.index.Tensor: _index,
    _aten._safe_softmax.default: _safe_softmax,
}
