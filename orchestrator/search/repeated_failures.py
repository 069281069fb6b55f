"""RepeatedFailures: notices that trials fail one after another of one and the same fault."""

from __future__ import annotations

from collections import defaultdict

from orchestrator.runs.progress import kind_of_reason

ENOUGH = 3  # trials that have failed with one reason: a further one would too


class RepeatedFailures:
    """Counts the trials of one start of a sweep by the reason for which they failed.

    Reasons are one and the same if they differ in numbers and in the trial's id only. Failures
    that another trial need not have, as the loss of a node, are not to be added.
    """

    def __init__(self) -> None:
        self._trials: dict[str, set[str]] = defaultdict(set)

    def add(self, trial_id: str, reason: str) -> bool:
        """Counts a trial; returns whether as many as are ENOUGH now have its reason."""
        alike = self._trials[kind_of_reason(trial_id, reason)]
        alike.add(trial_id)
        return len(alike) >= ENOUGH


def stopped_launching(reason: str, *, resume_command: str) -> str:
    """The message that no trial is launched any more, and how to go on."""
    return (
        f"{ENOUGH} trials have failed with one reason, so no more are launched: {reason}. "
        "What has finished stays. Once that is mended, this goes on and gives the failed ones "
        f"another chance: {resume_command} --retry-failed"
    )
