"""What did not finish and why, grouped so that ten like reasons read as one. LIGHT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.trial_result import RUNNING, TrialResult
from trainables.spec.states import FAILED, INFEASIBLE, INTERRUPTED, STOPPED

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
