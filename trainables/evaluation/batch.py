"""OneBatch: the frame around each batch of an evaluation, which measures and counts it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class OneBatch(Protocol):
    def __call__(self, *, representative: bool) -> AbstractContextManager[None]:
        """Entered for one batch; of `representative` ones the memory is measured."""
        ...
