"""How far a sweep has come, and the command that goes on with it. LIGHT."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.failures import counts_text
from orchestrator.trial_result import RUNNING, TrialResult
from trainables.spec.states import FAILED, FINISHED, INTERRUPTED, STOPPED
from trainables.storage.run_folder import RunFolder


def resume_line(run: RunFolder) -> str:
    """The command that goes on with the run: the one it was last started with."""
    given = remembered(run).get("resume_command")
    if given:
        return str(given)
    command = ["python", "-m", "orchestrator.sweep", str(run.sweep_file), "--name", run_name(run)]
    return shlex.join([*command, "--storage", str(run.path.parent)])


def run_name(run: RunFolder) -> str:
    """The sweep's name: its folder's."""
    return run.path.resolve().name


def wanted_trials(config: Mapping[str, Any]) -> int | None:
    """How many trials the sweep asks for, or None if its configuration does not say."""
    search = config.get("search")
    trials = search.get("trials") if isinstance(search, Mapping) else None
    return trials if isinstance(trials, int) else None


def is_over(run: RunFolder, results: Sequence[TrialResult], wanted: int | None) -> bool:
    """Whether a driver would find nothing left to run: none to go on with, none to start."""
    if any(item.state in (RUNNING, INTERRUPTED) for item in results):
        return False
    if wanted is None:
        return "trials_done" in remembered(run)
    return is_exhausted(run) or done_trials(results) >= wanted


def is_exhausted(run: RunFolder) -> bool:
    """Whether the sweep has ended because its space has no more configurations."""
    return bool(remembered(run).get("exhausted"))


def remembered(run: RunFolder) -> Mapping[str, Any]:
    """What drivers have noted of the sweep; nothing where that can't be read."""
    try:
        return run.state() or {}
    except (OSError, ValueError):
        return {}


def progress_text(run: RunFolder, results: Sequence[TrialResult], wanted: int | None) -> str:
    """'7 of 8 trials are done: 6 finished, 1 stopped.', and whether there can be more."""
    of = f" of {wanted}" if wanted is not None else ""
    text = f"{done_trials(results)}{of} trials are done: {counts_text(results)}."
    return f"{text} The space is exhausted: it has no more." if is_exhausted(run) else text


def done_trials(results: Sequence[TrialResult]) -> int:
    """Trials that count towards the number asked for: done, and not infeasible."""
    ended = (FINISHED, STOPPED, FAILED)
    return sum(item.is_trial and item.state in ended for item in results)
