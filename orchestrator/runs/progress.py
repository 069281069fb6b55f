"""How far a sweep has come, and the command that goes on with it. LIGHT."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.runs.trial_result import RUNNING, TrialResult
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED
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


ORDER = (FAILED, INFEASIBLE, STOPPED, INTERRUPTED, RUNNING)
_NUMBER = re.compile(r"-?\d[\d.,]*(?:e[+-]?\d+)?%?")


@dataclass(frozen=True)
class Group:
    """Trials of one state whose reasons differ in their numbers only; `reason` is the first's."""

    state: str
    reason: str
    trial_ids: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.trial_ids)


def unfinished(results: Sequence[TrialResult]) -> list[Group]:
    """Groups of trials and baselines that did not finish: failed ones first, then by size."""
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for item in results:
        if not item.finished:
            key = (item.state, _NUMBER.sub("#", item.reason))
            groups.setdefault(key, []).append(item)
    found = [
        Group(state, items[0].reason, tuple(item.trial_id for item in items))
        for (state, _), items in groups.items()
    ]
    return sorted(found, key=lambda group: (_place(group.state), -group.count, group.reason))


def counts(results: Sequence[TrialResult]) -> dict[str, int]:
    """How many trials (without baselines) are in each state, in a fixed order, zeros left out."""
    states = [item.state for item in results if item.is_trial]
    order = dict.fromkeys(["finished", STOPPED, FAILED, INFEASIBLE, INTERRUPTED, RUNNING, *states])
    return {state: states.count(state) for state in order if state in states}


def counts_text(results: Sequence[TrialResult]) -> str:
    """'14 finished, 4 stopped'; 'no trials' when there are none."""
    return ", ".join(f"{n} {state}" for state, n in counts(results).items()) or "no trials"


def _place(state: str) -> int:
    return ORDER.index(state) if state in ORDER else len(ORDER)
