"""Losses: how often a trial may lose its host, or a worker, before it counts as failed.

Machines that can be taken away at any moment take a long trial of many workers more often than any
fixed number. What ends a trial is to be lost again and again at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass

LOSSES_ALLOWED = 2  # without progress between them


@dataclass
class Losses:
    """The losses of one trial since it last got further than it was when it was lost."""

    count: int = 0
    _step: int = 0  # the furthest that it was

    def add(self, *, step: int) -> None:
        """It was lost after this optimizer step."""
        self.count += 1
        self._step = max(self._step, step)

    def reached(self, step: int) -> None:
        """It has told that this optimizer step is done; steps that it repeats are no progress."""
        if step > self._step:
            self.count = 0

    @property
    def is_hopeless(self) -> bool:
        return self.count > LOSSES_ALLOWED

    @property
    def may_go_on(self) -> bool:
        """Whether one more would be allowed."""
        return self.count < LOSSES_ALLOWED
