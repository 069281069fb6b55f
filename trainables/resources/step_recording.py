"""StepRecording: the peak memory of the first optimizer steps on a CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from trainables.models.tensors import tensor_bytes
from trainables.resources.allocator import allocator_events, highest_sum


class StepRecording:
    """A CPU's memory from before DeepSpeed takes the model over two optimizer steps, whatever is
    done between them: in the second one the optimizer's state is there from the beginning.

    DeepSpeed takes the model for good, so the longest batch can't be tried first as on one device:
    what counts is the batches of these steps.
    """

    STEPS = 2

    def __init__(self, model: Any) -> None:
        self.peak_bytes = 0
        self._now = tensor_bytes(model)
        self._steps = 0
        self._open: ExitStack | None = None
        self.go_on()

    def go_on(self) -> None:
        if self._open is None and self._steps < self.STEPS:
            self._open = ExitStack()
            self._events = self._open.enter_context(allocator_events())

    def give_up(self) -> None:
        self._steps = self.STEPS
        if self._open is not None:
            self._open.close()
            self._open = None

    def step_done(self) -> None:
        if self._open is None:
            return
        self._open.close()
        self._open = None
        self._steps += 1
        self.peak_bytes = max(self.peak_bytes, self._now + highest_sum(self._events))
        self._now += sum(event.changed_bytes for event in self._events)
