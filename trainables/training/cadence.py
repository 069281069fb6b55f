"""Cadence: when a trial is judged, when it tells of its progress, and when it saves."""

from __future__ import annotations

import time

from trainables.spec.trial_spec import Budget, Execution
from trainables.training.process_group import ProcessGroup


class Cadence:
    """Decides by the budget's rungs and by the clock, for all workers alike.

    `reported_steps`: the steps that an earlier attempt has told of after the checkpoint that this
    one began from.
    """

    def __init__(
        self, budget: Budget, execution: Execution, *, process_group: ProcessGroup
    ) -> None:
        self._budget = budget
        self._execution = execution
        self._process_group = process_group
        self.reported_steps: frozenset[int] = frozenset()
        self._last_event = self._last_save = time.monotonic()

    def due_rungs(self, *, units: int, judged: float) -> list[float]:
        """The rungs reached after `units` that lie above the last one judged, as fractions."""
        seen = units / self._budget.train_examples
        return [rung for rung in self._budget.rungs if judged < rung <= seen + 1e-9]

    def is_time_to_report(self, step: int) -> bool:
        """Whether to yield an event of progress after this step.

        What an attempt that broke off has told after its last checkpoint is told again at the
        same steps, and nothing between them: a tracker's curves then hold no point but ours.
        """
        if self.reported_steps and step <= max(self.reported_steps):
            return step in self.reported_steps
        seconds = time.monotonic() - self._last_event
        return bool(self._process_group.broadcast(seconds >= self._execution.progress_seconds))

    def is_time_to_save(self) -> bool:
        """Whether the last checkpoint is `checkpoint_seconds` old."""
        seconds = time.monotonic() - self._last_save
        return bool(self._process_group.broadcast(seconds >= self._execution.checkpoint_seconds))

    def event_reported(self) -> None:
        """An event was made now."""
        self._last_event = time.monotonic()

    def checkpoint_saved(self) -> None:
        """A checkpoint was written now."""
        self._last_save = time.monotonic()
