"""How far a sweep has come, and the command that goes on with it. LIGHT."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.trial_result import TrialResult
from trainables.run_folder import RunFolder


def resume_line(run: RunFolder) -> str:
    """The command that goes on with the run: the one it was last started with."""
    given = (run.state() or {}).get("resume_command")
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


def done_trials(results: Sequence[TrialResult]) -> int:
    """Trials that count towards the number asked for: done, and not infeasible."""
    ended = ("finished", "stopped", "failed")
    return sum(item.is_trial and item.state in ended for item in results)
