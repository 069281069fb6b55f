"""SweepClock: the wall time of a sweep over all its starts, and the limits of its trials."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.config.sections import LimitsConfig
from orchestrator.formatting import counted
from orchestrator.runs.state import read_state, remember
from trainables.storage.run_folder import RunFolder

KEPT_EVERY_SECONDS = 10.0  # the most that a killed driver does not count


class SweepClock:
    """Runs from when it is made; `update` saves it to sweep.json every few seconds, `save` now."""

    def __init__(
        self,
        run: RunFolder,
        limits: LimitsConfig,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._now = run, now
        self._hours = limits.sweep_hours
        self._before = float(read_state(run).get("seconds", 0.0))
        self._began = self._kept = now()

    @property
    def seconds(self) -> float:
        """The wall time of this start and of all before it."""
        return self._before + self._now() - self._began

    @property
    def used_up(self) -> bool:
        """Whether the sweep's hours are used up; never without a limit."""
        return self._hours is not None and self.seconds >= 3600 * self._hours

    def update(self) -> None:
        if self._now() - self._kept >= KEPT_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        self._kept = self._now()
        remember(self._run, seconds=round(self.seconds, 1))


def trial_limits(limits: LimitsConfig) -> dict[str, float | None]:
    """Returns the limits of one trial in seconds (see `TuneTrial`); None is no limit."""
    hours = limits.trial_hours
    return {
        "trial_seconds": None if hours is None else 3600 * hours,
        "silent_seconds": 60 * limits.silent_minutes,
    }


def out_of_hours(limits: LimitsConfig, *, resume_command: str) -> str:
    """Returns the message that the sweep's hours are used up, with the command that resumes."""
    hours = limits.sweep_hours or 0.0
    return (
        f"limits.sweep_hours: the {counted(hours, 'hour')} of this sweep "
        f"{'is' if hours == 1 else 'are'} used up; what had not ended "
        f"goes on from its checkpoints with more: "
        f"{resume_command} --set limits.sweep_hours={2 * hours:g}"
    )
