"""Agenda: which trial runs next. Unfinished ones first, then baselines and new suggestions.

The same configuration is never trained twice within a sweep: what is known is answered from its
result. Each model x quantization gets its untrained baseline once, outside budget and search.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.objective import OBJECTIVES
from orchestrator.plan import Planner
from orchestrator.search import Proposal, Search
from trainables.spec import (
    FAILED,
    FINISHED,
    INFEASIBLE,
    INTERRUPTED,
    STOPPED,
    Event,
    TrialSpec,
)

REPEATS_BEFORE_FALLING_BACK = 20
REFUSALS_BEFORE_GIVING_UP = 200  # in a row, in a space of ranges, which has no end


class Agenda:
    """Decides what runs next until `trials` distinct feasible configurations are done.

    `next` gives a trial to run or None; `over` tells an agenda that is at its end from one that
    waits for running trials. `exhausted` is true once the space has no more configurations,
    `gave_up` once too many in a row did not fit.
    """

    def __init__(
        self,
        *,
        planner: Planner,
        search: Search,
        ledger: Ledger,
        on_rejected: Callable[[TrialRecord], None],
    ) -> None:
        self._planner, self._search, self._ledger = planner, search, ledger
        self._on_rejected = on_rejected
        self._objective = OBJECTIVES[planner.config.objective]
        self._target = planner.config.search.trials
        self._proposals: dict[str, Proposal] = {}
        self._baselines: deque[TrialSpec] = deque()
        self.exhausted = self.gave_up = False
        self._refused_in_a_row = 0
        self._replay()
        self._unfinished = deque(ledger.with_state(INTERRUPTED))

    @property
    def over(self) -> bool:
        """Nothing is left to start and nothing that runs could change that."""
        nothing_waits = not self._unfinished and not self._baselines
        return nothing_waits and self._complete() and not self._ledger.with_state(RUNNING)

    def next(self) -> TrialRecord | None:
        """The next trial, marked running; None: nothing now (see `over`)."""
        record = self._next_unfinished() or self._next_baseline()
        if record is None and not self._enough():
            record = self._suggest()
        if record is None and self._enough():
            self._queue_remaining_baselines()
            record = self._next_baseline()
        if record is not None:
            record.state = RUNNING
        return record

    def rung(self, record: TrialRecord, event: Event) -> None:
        """A running trial was judged."""
        proposal = self._proposals.get(record.trial_id)
        if proposal is not None:
            value = self._objective(event.metrics)
            self._search.report(proposal, units=event.units, value=value)

    def ended(self, record: TrialRecord) -> None:
        """A trial reached the state in its record; the study is told."""
        if record.is_trial:
            infeasible = record.state == INFEASIBLE
            self._refused_in_a_row = self._refused_in_a_row + 1 if infeasible else 0
        proposal = self._proposals.pop(record.trial_id, None)
        if proposal is not None:
            self._tell(proposal, record)

    @property
    def end_reason(self) -> str | None:
        """Why the agenda ended before it had as many trials as were asked for, or None."""
        if self.gave_up:
            return (
                f"gave up: {REFUSALS_BEFORE_GIVING_UP} configurations in a row do not fit "
                "this hardware; the report says why."
            )
        return "space exhausted: there are no more configurations." if self.exhausted else None

    def _tell(self, proposal: Proposal, record: TrialRecord) -> None:
        if record.state == FINISHED and record.rungs:
            self._search.tell(proposal, "complete", self._objective(record.rungs[-1].metrics))
        elif record.state == STOPPED:
            self._search.tell(proposal, "pruned")
        else:
            self._search.tell(proposal, "worst" if record.state == INFEASIBLE else "failed")

    def _replay(self) -> None:
        """Tells the study what earlier runs found out."""
        for record in self._ledger:
            if not record.is_trial or not record.suggestion:
                continue
            proposal = self._search.replay(record.suggestion)
            for event in record.rungs:
                self._search.report(
                    proposal, units=event.units, value=self._objective(event.metrics)
                )
            if record.state == INTERRUPTED:
                self._proposals[record.trial_id] = proposal
            else:
                self._tell(proposal, record)

    def _suggest(self) -> TrialRecord | None:
        """A configuration that is not known yet and fits, or None if the space has no more."""
        for attempt in range(10_000):
            endless = self._search.size is None
            if endless and self._refused_in_a_row >= REFUSALS_BEFORE_GIVING_UP:
                self.gave_up = True
                return None
            wanted_new = attempt >= REPEATS_BEFORE_FALLING_BACK
            proposal = (
                self._search.propose_unseen(self._is_known)
                if wanted_new
                else self._search.propose()
            )
            if proposal is None and (wanted_new or self._planner.config.search.algorithm == "grid"):
                break
            record = self._consider(proposal) if proposal is not None else None
            if record is not None:
                return record
        self.exhausted = True
        return None

    def _consider(self, proposal: Proposal) -> TrialRecord | None:
        """The trial of a proposal, or None if it is known already or can't run."""
        spec = self._planner.spec(proposal.configuration)
        known = self._ledger.get(spec.trial_id)
        if known is not None:
            self._answer(proposal, known)
            return None
        record = self._ledger.add(spec, proposal.suggestion)
        self._proposals[record.trial_id] = proposal
        if self._is_rejected(record):
            return None
        self._queue_baseline(proposal.configuration)
        return record

    def _is_rejected(self, record: TrialRecord) -> bool:
        """Whether the trial can't run on this device; its result is then written and told."""
        rejection = self._planner.rejection(record.spec)
        if rejection is None:
            return False
        self._ledger.infeasible(record, rejection)
        self.ended(record)
        self._on_rejected(record)
        return True

    def _answer(self, proposal: Proposal, known: TrialRecord) -> None:
        """Tells the study the result of a configuration that it asked for again."""
        if known.state in (RUNNING, INTERRUPTED):
            self._search.tell(proposal, "failed")  # no result yet, and samplers ignore it
            return
        for event in known.rungs:
            self._search.report(proposal, units=event.units, value=self._objective(event.metrics))
        self._tell(proposal, known)

    def _is_known(self, configuration: Mapping[str, Any]) -> bool:
        return self._ledger.get(self._planner.spec(configuration).trial_id) is not None

    def _next_unfinished(self) -> TrialRecord | None:
        """A trial of an earlier run that this device can run."""
        while self._unfinished:
            record = self._unfinished.popleft()
            if not self._is_rejected(record):
                return record
        return None

    def _next_baseline(self) -> TrialRecord | None:
        while self._baselines:
            spec = self._baselines.popleft()
            if self._ledger.get(spec.trial_id) is None:
                return self._ledger.add(spec, {})
        return None

    def _queue_baseline(self, configuration: Mapping[str, Any]) -> None:
        spec = self._planner.baseline(configuration)
        if self._ledger.get(spec.trial_id) is None and spec not in self._baselines:
            self._baselines.append(spec)

    def _queue_remaining_baselines(self) -> None:
        for configuration in self._planner.cell_configurations():
            self._queue_baseline(configuration)

    def _enough(self) -> bool:
        """As many distinct feasible configurations are done or running as were asked for."""
        counted = self._ledger.count(RUNNING, FINISHED, STOPPED, FAILED, INTERRUPTED)
        return self.exhausted or self.gave_up or counted >= self._target

    def _complete(self) -> bool:
        """No new configuration will be wanted, whatever becomes of those that run."""
        done = self._ledger.count(FINISHED, STOPPED, FAILED)
        return self.exhausted or self.gave_up or done >= self._target
