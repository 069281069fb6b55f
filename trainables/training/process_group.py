"""ProcessGroup: the workers that train one trial together, and their collective operations.

A single worker is a group too, so that there is one training loop. All workers call every method at
the same point of the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


class DisagreementError(RuntimeError):
    """The workers of one trial see different trials."""


class ProcessGroup(Protocol):
    """Worker `rank` of `size`; the worker of rank 0 decides by its clock and writes the folder."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def sum(self, value: float) -> float:
        """The sum of all workers' values."""

    def max(self, value: float) -> float:
        """The greatest value of all workers."""

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, which must be JSON."""

    def gather(self, value: bytes) -> list[bytes]:
        """The values of all workers by rank; they must have the same length."""

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replaces each parameter's gradient by the sum over all workers."""

    def check_same(self, what: str, value: Any) -> None:
        """Raises DisagreementError on all workers if their values (JSON) differ."""

    def barrier(self) -> None:
        """Returns when all workers have called it."""


@dataclass(frozen=True)
class SingleProcess:
    """A group of one worker."""

    rank: int = 0
    size: int = 1

    def sum(self, value: float) -> float:
        return value

    def max(self, value: float) -> float:
        return value

    def broadcast(self, value: Any) -> Any:
        return value

    def gather(self, value: bytes) -> list[bytes]:
        return [value]

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """The gradients are the sum already."""

    def check_same(self, what: str, value: Any) -> None:
        """There is nothing to compare."""

    def barrier(self) -> None:
        """There is nobody to wait for."""


@dataclass(frozen=True)
class TorchProcessGroup:
    """The processes of torch.distributed's default group, with tensors on `device`."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def joined(cls, device: torch.device) -> TorchProcessGroup:
        """The group that this process has joined; raises ValueError if it has joined none."""
        import torch.distributed as dist

        return cls(rank=dist.get_rank(), size=dist.get_world_size(), device=device)

    def sum(self, value: float) -> float:
        import torch.distributed as dist

        return self._reduced(value, dist.ReduceOp.SUM)

    def max(self, value: float) -> float:
        import torch.distributed as dist

        return self._reduced(value, dist.ReduceOp.MAX)

    def broadcast(self, value: Any) -> Any:
        import json

        import torch.distributed as dist

        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(text)], device=self.device)
        dist.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(content, src=0)
        return json.loads(bytes(content.cpu().tolist()))

    def gather(self, value: bytes) -> list[bytes]:
        import torch.distributed as dist

        mine = torch.frombuffer(bytearray(value), dtype=torch.uint8).to(self.device)
        found = [torch.zeros_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return [bytes(part.cpu().tolist()) for part in found]

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.grad is None:  # other workers may have one
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def check_same(self, what: str, value: Any) -> None:
        import hashlib
        import json

        own = hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).digest()
        found = self.gather(own)
        others = [rank for rank, digest in enumerate(found) if digest != found[0]]
        if others:
            raise DisagreementError(
                f"{what}: workers {', '.join(map(str, others))} differ from worker 0. All of them "
                "must see the same run folder, model, data and package versions."
            )

    def barrier(self) -> None:
        self.sum(0.0)  # dist.barrier would need the device under NCCL

    def _reduced(self, value: float, operation: Any) -> float:
        import torch.distributed as dist

        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=operation)
        return float(tensor)


def share(indices: Sequence[int], process_group: ProcessGroup, *, rows: int) -> list[list[int]]:
    """The worker's micro-batches, of at most `rows` examples, of an optimizer step, in order.

    All workers get the same number of them, because each involves collective operations; with too
    few examples the last ones are empty.
    """
    mine = list(indices[process_group.rank :: process_group.size])
    most = -(-len(indices) // process_group.size)
    return [mine[at : at + rows] for at in range(0, most, rows)]
