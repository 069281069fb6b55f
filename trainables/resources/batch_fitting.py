"""BatchShrinker: the batch size at which work fits in memory; starts at an estimate and halves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trainables.resources.out_of_memory import OUT_OF_MEMORY, free_memory, memory_errors
from trainables.spec.knob_values import AUTO

Result = TypeVar("Result")


def nothing() -> None:
    """Undoes nothing."""


def predicted_batch_size(
    estimate: Mapping[str, Any] | None, *, limit: int, key: str = "micro_batch"
) -> int:
    """The batch size to start with: that of the trial's estimate, at most `limit`, or else `limit`.

    `key`: "micro_batch" for training, "eval_batch" for an evaluation.
    """
    found = (estimate or {}).get(key)
    return min(found, limit) if isinstance(found, int) and found >= 1 else limit


@dataclass
class BatchShrinker:
    """Runs work with `batch_size`, which is halved for good if it does not fit and `may_shrink`."""

    batch_size: int
    may_shrink: bool = True

    @classmethod
    def for_training(
        cls, batch_size: int | str, estimate: Mapping[str, Any] | None, *, limit: int
    ) -> BatchShrinker:
        """The micro-batch of a trial: as given, or for "auto" as estimated and halved on need."""
        if batch_size != AUTO:
            return cls(int(batch_size), may_shrink=False)
        return cls(predicted_batch_size(estimate, limit=limit))

    def fit(
        self, attempt: Callable[[int], Result], *, undo: Callable[[], None] = nothing
    ) -> Result:
        """Returns `attempt(batch_size)`.

        An attempt that runs out of memory is undone and repeated with half the batch size. Raises
        its error (one of OUT_OF_MEMORY) if the batch size cannot be halved.
        """
        while True:
            try:
                with memory_errors():
                    return attempt(self.batch_size)
            except OUT_OF_MEMORY:
                if not self.may_shrink or self.batch_size == 1:
                    raise
            undo()  # not in the handler, where the error still holds the attempt's tensors
            self.batch_size = (self.batch_size + 1) // 2
            free_memory()
