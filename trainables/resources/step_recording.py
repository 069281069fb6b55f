"""StepRecording: the peak memory of the first optimizer steps on a CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from trainables.models.tensors import tensor_bytes
from trainables.resources.allocator import allocator_events, highest_sum


class StepRecording:
    """Records the peak memory of the first two optimizer steps, with DeepSpeed on a CPU.

    It starts before DeepSpeed takes the model, and does not record the work between the steps. In
    the second step the optimizer's state exists from the start. DeepSpeed does not give the model
    back, so that the longest batch cannot be measured first as on one device: the peak is that of
    the batches of these steps.
    """

    STEPS = 2

    def __init__(self, model: Any) -> None:
        self.peak_bytes = 0
        self._now = tensor_bytes(model)
        self._steps = 0
        self._open: ExitStack | None = None
        self.resume()

    def resume(self) -> None:
        """Starts or resumes recording, until `end_step`; does nothing after the last step."""
        if self._open is None and self._steps < self.STEPS:
            self._open = ExitStack()
            self._events = self._open.enter_context(allocator_events())

    def stop(self) -> None:
        """Stops recording for good."""
        self._steps = self.STEPS
        if self._open is not None:
            self._open.close()
            self._open = None

    def end_step(self) -> None:
        """Ends a step: raises `peak_bytes` to its peak."""
        if self._open is None:
            return
        self._open.close()
        self._open = None
        self._steps += 1
        self.peak_bytes = max(self.peak_bytes, self._now + highest_sum(self._events))
        self._now += sum(event.changed_bytes for event in self._events)
