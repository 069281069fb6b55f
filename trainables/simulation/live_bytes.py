"""LiveBytes: which tensors are alive when, and the FLOPs done, while a step runs on fake tensors.

A LiveBytes is a dispatch mode above a FakeTensorMode and sees every operation. Where fake tensors
would take other memory than real ones, it replaces the operation (`special_operations`).
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.simulation.kernels import FLOPS, Kernel
from trainables.simulation.special_operations import SPECIAL_OPERATIONS, workspace_bytes

_DEVICE = torch.ops.prim.device.default
_BATCHED_MATMULS = {torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default}
_MATMULS = _BATCHED_MATMULS | {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that are made while it is active, except those of `existing` tensors.

    `granularity_bytes`: allocations are rounded up to a multiple of it. `true_counts`: how many
    entries of a mask are true, by the mask's shape. `kernels`: replacements of operations.
    `copies_operands`: operations copy operands whose type or strides they can't use. `head`: the
    weight that makes logits. `length`: tokens of a row, which may change. `flops` are keyed by what
    they grow with: token, pair (of query and key), logit or, as products of weights do, nothing
    (fixed). `truth`: the value of a condition that depends on data.
    """

    def __init__(
        self,
        existing: Iterable[torch.Tensor] = (),
        *,
        granularity_bytes: int = 1,
        true_counts: Mapping[tuple[int, ...], int] | None = None,
        kernels: Mapping[Any, Kernel] | None = None,
        copies_operands: bool = False,
        head: torch.Tensor | None = None,
        length: int | None = None,
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
        existing = list(existing)
        self._weights = {t.untyped_storage()._cdata for t in existing if t.is_floating_point()}
        self._weights_multiplied: set[tuple[int, ...]] = set()  # sizes of products
        self._heads = set() if head is None else {head.untyped_storage()._cdata}  # also cast ones
        self._existing = [tensor.untyped_storage() for tensor in existing]
        self._ignored = {storage._cdata for storage in self._existing}
        self._granularity = granularity_bytes
        self._true_counts = dict(true_counts or {})
        self._kernels = dict(kernels or {})
        self._counting = True
        self._head = head
        self.length = length
        self._copies_operands = copies_operands

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Operations inside belong to the phase `name`."""
        before, self._phase = self._phase, name
        self._begin(name)
        try:
            yield
        finally:
            self._phase = before

    def enter_phase(self, name: str) -> None:
        """Operations belong to `name` until the surrounding `phase` ends."""
        self._phase = name
        self._begin(name)

    def peaks_above(self, storages: Iterable[torch.UntypedStorage]) -> dict[str, int]:
        """Each phase's peak of the bytes that were alive besides `storages`."""
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
        copied = workspace_bytes(func, args) if self._copies_operands else 0
        if copied:
            self._change(0, copied)
        if func in SPECIAL_OPERATIONS:
            out = SPECIAL_OPERATIONS[func](self, args, kwargs)
        elif not self._counting and func._can_decompose():
            with self:  # autograd, which is off inside a kernel, would decompose it
                out = func.decompose(*args, **kwargs)
        elif func in self._kernels:
            self._count(func, args, kwargs, None)
            with self._inside():
                out = self._kernels[func](*args, **kwargs)
        else:
            out = func(*args, **kwargs)
            self._count(func, args, kwargs, out)
        self._follow(out, (*args, *kwargs.values()))
        if copied:
            self._change(0, -copied)
        return out

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and the default implementation is slow."""
        return False

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """The operations of a kernel take memory, but its FLOPs are already counted."""
        before, self._counting = self._counting, False
        try:
            with self:
                yield
        finally:
            self._counting = before

    def true_count(self, mask: torch.Tensor) -> int:
        """How many entries of a mask are true."""
        return self._true_counts.get(tuple(mask.shape), mask.numel())

    def _begin(self, phase: str) -> None:
        self.peaks[phase] = max(self.peaks.get(phase, 0), self.now_bytes)
        self._changes.append((phase, 0, 0))

    def _follow(self, out: Any, given: Iterable[Any]) -> None:
        if isinstance(out, torch.Tensor):
            self._follow_storage(out.untyped_storage(), given)
        elif isinstance(out, list | tuple):
            for part in out:
                self._follow(part, given)

    def _follow_storage(self, storage: torch.UntypedStorage, given: Iterable[Any]) -> None:
        key = storage._cdata
        if key in self._numbers or key in self._ignored:
            return
        size = -(-storage.nbytes() // self._granularity) * self._granularity
        self._made += 1
        number = self._made

        def freed(reference: Any, phase_of: LiveBytes = self) -> None:
            del reference
            phase_of._numbers.pop(key, None)
            phase_of._weights.discard(key)
            phase_of._heads.discard(key)
            phase_of._change(number, -size)

        self._numbers[key] = number, size, weakref.ref(storage, freed)
        for group in (self._weights, self._heads):
            if _are_of(group, given):
                group.add(key)
        self._change(number, size)

    def _change(self, number: int, size: int) -> None:
        self.now_bytes += size
        phase = self._phase
        self._changes.append((phase, number, size))
        if self.now_bytes > self.peaks.get(phase, 0):
            self.peaks[phase] = self.now_bytes

    def _count(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        formula = FLOPS.get(func.overloadpacket) if self._counting else None
        if formula is None:
            return
        name = self._grows_with(func, args, out)
        done = formula(*args, **kwargs, out_val=out)
        self.flops[name] = self.flops.get(name, 0) + done

    def _grows_with(self, func: Any, args: Any, out: Any) -> str:
        if "attention" in func.overloadpacket.__name__ or self._is_of_scores(func, args):
            return "pair"
        if func in _MATMULS and self._is_of_weights(*args[-2:]):
            return "fixed"
        head = self._head
        if head is None:
            return "token"
        if any(_are_of(self._heads, [arg]) for arg in args):
            return "logit"
        is_gradient = head.requires_grad and out is not None and out.shape == head.shape
        return "logit" if is_gradient else "token"

    def _is_of_scores(self, func: Any, args: Any) -> bool:
        """Whether a matmul makes or uses the scores of attention that is written as a formula: of
        the three sizes of each of its products, two are the row's length."""
        if func not in _BATCHED_MATMULS:
            return False
        first, second = args[-2:]
        sizes = [*first.shape[1:], second.shape[-1]]
        return sizes.count(self.length) == 2

    def _is_of_weights(self, first: torch.Tensor, second: torch.Tensor) -> bool:
        """Whether a matmul is of weights, or of the gradient of such a product, whose sizes are the
        same: PEFT multiplies the adapters of experts in every pass."""
        sizes = tuple(sorted((*first.shape, second.shape[-1])))
        if _are_of(self._weights, (first, second)):
            self._weights_multiplied.add(sizes)
        return sizes in self._weights_multiplied


def _are_of(storages: Collection[int], given: Iterable[Any]) -> bool:
    """Whether all tensors of `given`, and at least one, are in storages of that group.

    What is made of such tensors alone joins their group, as a weight that autocast has cast.
    """
    tensors = [part for part in given if isinstance(part, torch.Tensor)]
    owned = (part.untyped_storage()._cdata in storages for part in tensors)
    return bool(tensors) and all(owned)
