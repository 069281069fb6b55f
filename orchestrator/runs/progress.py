"""The progress of a sweep, and the command that resumes it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.formatting import counted, is_or_are
from orchestrator.runs.trial_result import RUNNING, TrialResult
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED
from trainables.storage.run_folder import RunFolder


def resume_line(run: RunFolder) -> str:
    """The command that resumes the run: the one that started it last."""
    remembered_command = remembered(run).get("resume_command")
    if remembered_command:
        return str(remembered_command)
    command = ["python", "-m", "orchestrator.sweep", str(run.sweep_file), "--name", run_name(run)]
    return shlex.join([*command, "--storage", str(run.path.parent)])


def run_name(run: RunFolder) -> str:
    """The sweep's name, which is that of its folder."""
    return run.path.resolve().name


def wanted_trials(config: Mapping[str, Any]) -> int | None:
    """The number of trials in the sweep's configuration, or None if it has none."""
    search = config.get("search")
    trials = search.get("trials") if isinstance(search, Mapping) else None
    return trials if isinstance(trials, int) else None


def is_over(run: RunFolder, results: Sequence[TrialResult], wanted: int | None) -> bool:
    """Whether a driver would find no trial to resume and none to start."""
    if any(item.state in (RUNNING, INTERRUPTED) for item in results):
        return False
    if wanted is None:
        return "trials_done" in remembered(run)
    return is_exhausted(run) or done_trials(results) >= wanted


def not_scored(trial_id: str, reason: str) -> str:
    """The warning that a trial that should have been was not scored on the report split."""
    return f"trial {trial_id} was not scored on the report split: {reason}"


def unscored(run: RunFolder) -> list[str]:
    """Warnings about trials that can't be scored on the report split on this sweep's devices."""
    found = remembered(run).get("unscored")
    reasons = found if isinstance(found, Mapping) else {}
    return [not_scored(trial_id, str(reason)) for trial_id, reason in reasons.items()]


def is_exhausted(run: RunFolder) -> bool:
    """Whether the sweep ended because its space has no more configurations."""
    return bool(remembered(run).get("exhausted"))


def remembered(run: RunFolder) -> Mapping[str, Any]:
    """The content of sweep.json; empty if it can't be read."""
    try:
        return run.state() or {}
    except (OSError, ValueError):
        return {}


def progress_text(run: RunFolder, results: Sequence[TrialResult], wanted: int | None) -> str:
    """'7 of 8 trials are done: 6 finished, 1 stopped.', and whether the space is exhausted."""
    text = f"{done_text(done_trials(results), wanted)}: {counts_text(results)}."
    return f"{text} The space is exhausted: it has no more." if is_exhausted(run) else text


def done_text(done: int, wanted: int | None) -> str:
    """'7 of 8 trials are done', '1 trial is done' where the wanted number is not known."""
    of = "" if wanted is None else f"{done} of "
    most = done if wanted is None else wanted
    return f"{of}{counted(most, 'trial')} {is_or_are(most)} done"


def done_trials(results: Sequence[TrialResult]) -> int:
    """The number of trials that count towards the wanted number: ended, and not infeasible."""
    ended = (FINISHED, STOPPED, FAILED)
    return sum(item.is_trial and item.state in ended for item in results)


_STATE_ORDER = (FAILED, INFEASIBLE, STOPPED, INTERRUPTED, RUNNING)
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|-?\d[\d.,]*(?:e[+-]?\d+)?%?")
_ID_IN_TEXT = 6  # letters of a trial's id by which messages name it


@dataclass(frozen=True)
class Group:
    """Trials of one state whose reasons are of one kind; `reason` is that of the first."""

    state: str
    reason: str
    trial_ids: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.trial_ids)


def unfinished(results: Sequence[TrialResult]) -> list[Group]:
    """Groups of trials and baselines that did not finish, by state, then by size."""
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for item in results:
        if not item.finished:
            key = (item.state, kind_of_reason(item.trial_id, item.reason))
            groups.setdefault(key, []).append(item)
    found = [
        Group(state, items[0].reason, tuple(item.trial_id for item in items))
        for (state, _), items in groups.items()
    ]
    return sorted(found, key=lambda group: (_state_place(group.state), -group.count, group.reason))


def kind_of_reason(trial_id: str, reason: str) -> str:
    """The reason of a trial without what differs from trial to trial: its id, and numbers."""
    for name in (trial_id, trial_id[:_ID_IN_TEXT]):
        reason = reason.replace(name, "#")
    return _NUMBER.sub("#", reason)


def counts(results: Sequence[TrialResult]) -> dict[str, int]:
    """The number of trials, without baselines, in each state that occurs, in a fixed order."""
    states = [item.state for item in results if item.is_trial]
    order = dict.fromkeys(["finished", STOPPED, FAILED, INFEASIBLE, INTERRUPTED, RUNNING, *states])
    return {state: states.count(state) for state in order if state in states}


def counts_text(results: Sequence[TrialResult]) -> str:
    """'14 finished, 4 stopped', or 'no trials'."""
    return ", ".join(f"{n} {state}" for state, n in counts(results).items()) or "no trials"


def _state_place(state: str) -> int:
    return _STATE_ORDER.index(state) if state in _STATE_ORDER else len(_STATE_ORDER)
