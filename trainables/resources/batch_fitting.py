"""Fitting: how many rows run through a model at once, as many as are foretold to fit, halved
where they are more than do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from trainables.resources.out_of_memory import OUT_OF_MEMORY, free_memory, memory_errors

Result = TypeVar("Result")


def nothing() -> None:
    """There is nothing to undo."""


def predicted_batch_size(
    prediction: Mapping[str, Any] | None, *, most: int, of: str = "micro_batch"
) -> int:
    """With how many rows at once to begin: those of a trial's prediction, else `most`.

    `of`: micro_batch, of the training, or eval_batch, of an evaluation.
    """
    told = (prediction or {}).get(of)
    return min(told, most) if isinstance(told, int) and told >= 1 else most


@dataclass
class BatchShrinker:
    """`rows` at once; where they do not fit and `may_shrink`, half as many from then on."""

    rows: int
    may_shrink: bool = True

    def fit(
        self, attempt: Callable[[int], Result], *, undo: Callable[[], None] = nothing
    ) -> Result:
        """What `attempt(rows)` returns.

        One that runs out of memory is undone and made anew with fewer rows. Raises what it raised
        (one of OUT_OF_MEMORY) where there can't be fewer.
        """
        while True:
            try:
                with memory_errors():
                    return attempt(self.rows)
            except OUT_OF_MEMORY:
                if not self.may_shrink or self.rows == 1:
                    raise
            undo()  # outside of the handler: the error holds what the attempt had made
            self.rows = (self.rows + 1) // 2
            free_memory()
