"""LiveBytes: which tensors live when, and the FLOPs done, while a step runs on fake tensors.

It sits above a FakeTensorMode and sees every operation. What fake tensors would get wrong about
memory is put right here: the backward pass adds up gradients in place, and operations whose
result depends on data are told what they would have found.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.simulation.kernels import FLOPS, Kernel, attention_workspace_bytes

_aten = torch.ops.aten
_ATTENTION = _aten._scaled_dot_product_flash_attention_for_cpu.default
_DEVICE = torch.ops.prim.device.default
_ENGINE = "_engine_run_backward"  # the Python function that autograd's own operations come from
_SOLE_TENSOR, _SOLE_STORAGE = 4, 2  # use counts, as seen from a dispatch mode, of a sole owner's


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages made while it is on; not those of `existing` tensors.

    `granularity_bytes`: an allocation is rounded up to a multiple of it. `answers`: how many
    entries a mask of each shape is true for. `kernels`: what runs in an operation's place.
    `copies_operands`: operations copy operands whose type or strides they can't use.
    `head`: the weight that makes logits. `flops` are by what they grow with: token, pair (of query
    and key) or logit. `truth`: the answer to a condition that data decide.
    """

    def __init__(
        self,
        existing: Iterable[torch.Tensor] = (),
        *,
        granularity_bytes: int = 1,
        answers: Mapping[tuple[int, ...], int] | None = None,
        kernels: Mapping[Any, Kernel] | None = None,
        copies_operands: bool = False,
        head: torch.Tensor | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes = 0
        self.peaks: dict[str, int] = {}
        self.flops: dict[str, int] = {}
        self.truth = False
        self._phase = ""
        self._changes: list[tuple[str, int, int]] = []  # phase, storage's number, bytes
        self._numbers: dict[int, tuple[int, int, Any]] = {}  # number, bytes and reference
        self._made = 0
        self._existing = [tensor.untyped_storage() for tensor in existing]
        self._ignored = {storage._cdata for storage in self._existing}
        self._granularity = granularity_bytes
        self._answers = dict(answers or {})
        self._kernels = dict(kernels or {})
        self._counting = True
        self._head = head
        self._copies_operands = copies_operands

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside belongs to the phase `name`."""
        before, self._phase = self._phase, name
        self._begin(name)
        try:
            yield
        finally:
            self._phase = before

    def enter_phase(self, name: str) -> None:
        """From now on, until the surrounding `phase` ends, things belong to `name`."""
        self._phase = name
        self._begin(name)

    def peaks_above(self, storages: Iterable[torch.UntypedStorage]) -> dict[str, int]:
        """Each phase's peak of what was alive besides `storages`."""
        left_out = {self._numbers[s._cdata][0] for s in storages if s._cdata in self._numbers}
        now, peaks = 0, dict[str, int]()
        for phase, number, change in self._changes:
            if number not in left_out:
                now += change
            peaks[phase] = max(peaks.get(phase, 0), now)
        return peaks

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is _DEVICE:
            return args[0].fake_device
        copied = self._copied_bytes(func, args) if self._copies_operands else 0
        if copied:
            self._change(0, copied)
        if func in _SPECIAL:
            out = _SPECIAL[func](self, args, kwargs)
        elif not self._counting and func._can_decompose():
            with self:  # autograd, which is off inside a kernel, would have done so
                out = func.decompose(*args, **kwargs)
        elif func in self._kernels:
            self._count(func, args, kwargs, None)
            with self._inside():
                out = self._kernels[func](*args, **kwargs)
        else:
            out = func(*args, **kwargs)
            self._count(func, args, kwargs, out)
        self._follow(out)
        if copied:
            self._change(0, -copied)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here; asking at every operation takes long."""
        return False

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """A kernel's own operations take memory; its FLOPs are counted already."""
        before, self._counting = self._counting, False
        try:
            with self:
                yield
        finally:
            self._counting = before

    def answer_for(self, mask: torch.Tensor) -> int:
        """For how many entries of a mask it is true."""
        return self._answers.get(tuple(mask.shape), mask.numel())

    def _begin(self, phase: str) -> None:
        self.peaks[phase] = max(self.peaks.get(phase, 0), self.now_bytes)
        self._changes.append((phase, 0, 0))

    def _follow(self, out: Any) -> None:
        if isinstance(out, torch.Tensor):
            self._follow_storage(out.untyped_storage())
        elif isinstance(out, list | tuple):
            for part in out:
                self._follow(part)

    def _follow_storage(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._numbers or key in self._ignored:
            return
        size = -(-storage.nbytes() // self._granularity) * self._granularity
        self._made += 1
        number = self._made

        def freed(reference: Any, phase_of: LiveBytes = self) -> None:
            del reference
            phase_of._numbers.pop(key, None)
            phase_of._change(number, -size)

        self._numbers[key] = number, size, weakref.ref(storage, freed)
        self._change(number, size)

    def _change(self, number: int, size: int) -> None:
        self.now_bytes += size
        phase = self._phase
        self._changes.append((phase, number, size))
        if self.now_bytes > self.peaks.get(phase, 0):
            self.peaks[phase] = self.now_bytes

    def _copied_bytes(self, func: Any, args: Any) -> int:
        """What a CPU's operation takes besides its result, and frees before it returns."""
        if func in _ELEMENTWISE and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return _cast_bytes(args[0], args[1], in_place=func in _IN_PLACE)
        if func in _MATMULS:
            return sum(map(_reordered_bytes, args[:2]))
        if func is _ATTENTION:
            return attention_workspace_bytes(args[0], args[1])
        return 0

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        formula = FLOPS.get(func.overloadpacket) if self._counting else None
        if formula is None:
            return
        name = self._grows_with(func, args, out)
        done = formula(*args, **kwargs, out_val=out)
        self.flops[name] = self.flops.get(name, 0) + done

    def _grows_with(self, func: Any, args: Any, out: Any) -> str:
        if "attention" in func.overloadpacket.__name__:
            return "pair"
        head = self._head
        if head is None:
            return "token"
        storage = head.untyped_storage()._cdata
        operands = (arg for arg in args if isinstance(arg, torch.Tensor))
        if any(operand.untyped_storage()._cdata == storage for operand in operands):
            return "logit"
        is_gradient = head.requires_grad and out is not None and out.shape == head.shape
        return "logit" if is_gradient else "token"


def _add(live: LiveBytes, args: Any, kwargs: Any) -> Any:
    """Autograd adds to a gradient in place where nobody else holds it, but not to a fake one."""
    old = args[0]
    if _from_engine() and not kwargs and _is_sole(old) and old.shape == args[1].shape:
        return old.add_(args[1])
    return _aten.add.Tensor(*args, **kwargs)


def _put(live: LiveBytes, args: Any, kwargs: Any) -> Any:
    """Autograd fills the gradient of an indexed tensor in place, but not a fake one."""
    if _from_engine() and not kwargs:
        return _aten.index_put_.default(*args)
    return _aten.index_put.default(*args, **kwargs)


def _number(live: LiveBytes, args: Any, kwargs: Any) -> Any:
    return live.truth if args[0].dtype == torch.bool else 0


def _nonzero(live: LiveBytes, args: Any, kwargs: Any) -> Any:
    mask = args[0]
    return mask.new_empty((live.answer_for(mask), mask.dim()), dtype=torch.int64)


def _index(live: LiveBytes, args: Any, kwargs: Any) -> Any:
    source, indices = args
    mask = indices[0]
    if len(indices) != 1 or mask is None or mask.dtype != torch.bool:
        return _aten.index.Tensor(*args, **kwargs)
    with live:
        found = mask.nonzero().unbind(1)
    return _aten.index.Tensor(source, found)


def _cast_bytes(first: torch.Tensor, second: torch.Tensor, *, in_place: bool) -> int:
    """Operands of another type than their common one, and a result that is stored in another."""
    if first.dtype == second.dtype or not (first.dim() and second.dim()):
        return 0
    common = torch.result_type(first, second)
    cast = [part for part in (first, second) if part.dtype != common]
    if in_place and first.dtype != common:
        cast.append(first)
    return sum(common.itemsize * part.numel() for part in cast)


def _reordered_bytes(matrix: torch.Tensor) -> int:
    """oneDNN multiplies 16-bit matrices that are contiguous, plainly or transposed, and no
    expanded ones (ATen/native/mkldnn/Matmul.cpp)."""
    if matrix.dtype not in _ONEDNN_TYPES or matrix.is_contiguous():
        return 0
    *batch, rows, columns = matrix.shape
    transposed = (rows * columns, 1, rows) if batch else (1, rows)
    return 0 if matrix.stride() == transposed else matrix.numel() * matrix.itemsize


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


_ONEDNN_TYPES = {
    dtype
    for dtype, is_supported in (
        (torch.bfloat16, torch.ops.mkldnn._is_mkldnn_bf16_supported),
        (torch.float16, torch.ops.mkldnn._is_mkldnn_fp16_supported),
    )
    if is_supported()
}
_MATMULS = {_aten.mm.default, _aten.bmm.default}
_IN_PLACE = {getattr(_aten, name).Tensor for name in ("add_", "sub_", "mul_", "div_")}
_ELEMENTWISE = _IN_PLACE | {getattr(_aten, name).Tensor for name in ("add", "sub", "mul", "div")}
_SPECIAL: dict[Any, Callable[[LiveBytes, Any, Any], Any]] = {
    _aten.add.Tensor: _add,
    _aten.index_put.default: _put,
    _aten._local_scalar_dense.default: _number,
    _aten.nonzero.default: _nonzero,
    _aten.index.Tensor: _index,
}
