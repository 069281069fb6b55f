"""Cadence: when a trial is evaluated, when it reports its progress, and when it saves."""

from __future__ import annotations

import time

from trainables.spec.trial_spec import Budget, Execution
from trainables.training.process_group import ProcessGroup


class Cadence:
    """Decides by the budget's rungs and by the clock, in the same way for all workers.

    `reported_steps` are the steps that an earlier attempt reported after the checkpoint from which
    this one resumes.
    """

    def __init__(
        self, budget: Budget, execution: Execution, *, process_group: ProcessGroup
    ) -> None:
        self._budget = budget
        self._execution = execution
        self._process_group = process_group
        self.reported_steps: frozenset[int] = frozenset()
        self._last_event = self._last_save = time.monotonic()

    def due_rungs(self, *, units: int, evaluated: float) -> list[float]:
        """The rungs reached after `units` that are above the last evaluated one, as fractions."""
        seen = units / self._budget.train_examples
        return [rung for rung in self._budget.rungs if evaluated < rung <= seen + 1e-9]

    def is_time_to_report(self, step: int) -> bool:
        """Whether to yield a progress event after this step.

        Steps that an interrupted attempt reported after its last checkpoint are reported again, and
        none between them, so that a tracker's curves have the points of one attempt only.
        """
        if self.reported_steps and step <= max(self.reported_steps):
            return step in self.reported_steps
        seconds = time.monotonic() - self._last_event
        return bool(self._process_group.broadcast(seconds >= self._execution.progress_seconds))

    def is_time_to_save(self) -> bool:
        """Whether the last checkpoint is at least `checkpoint_seconds` old."""
        seconds = time.monotonic() - self._last_save
        return bool(self._process_group.broadcast(seconds >= self._execution.checkpoint_seconds))

    def event_reported(self) -> None:
        """Records that an event was made now."""
        self._last_event = time.monotonic()

    def checkpoint_saved(self) -> None:
        """Records that a checkpoint was written now."""
        self._last_save = time.monotonic()
