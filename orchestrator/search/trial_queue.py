"""TrialQueue: which trial runs next. Unfinished ones first, then baselines and new suggestions.

The same configuration is never trained twice within a sweep: the study gets the known result.
A configuration that surely does not fit is not launched, and one that is unlikely to fit comes
late. Each model x quantization gets its untrained baseline once, outside budget and search.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.config.objectives import objectives_of
from orchestrator.planning.planner import Planner
from orchestrator.runs.ledger import RUNNING, Ledger, TrialRecord
from orchestrator.search.feasibility import FeasibilityModel
from orchestrator.search.screening import Screening
from orchestrator.search.searcher import Proposal, Search
from orchestrator.space.tree import questions
from trainables.spec.events import Event
from trainables.spec.states import FAILED, FINISHED, INFEASIBLE, INTERRUPTED, STOPPED
from trainables.spec.trial_spec import TrialSpec

REFUSALS_BEFORE_GIVING_UP = 200  # in a row, in a space of ranges, which has no end
_LISTED = 200  # at most so many that the device rules out are listed one by one


class TrialQueue:
    """Decides what runs next until `trials` distinct feasible configurations are done.

    `next` returns a trial to run, or None; `over` distinguishes a queue at its end from one that
    waits for running trials. `exhausted` is true once the space has no more configurations,
    `gave_up` once no further configuration that fits was found in a space of ranges.
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
        self._objectives = objectives_of(planner.config)
        self._feasibility = FeasibilityModel(
            question.knob for question in questions(planner.config.space)
        )
        self._screening = Screening(
            planner=planner,
            search=search,
            ledger=ledger,
            feasibility=self._feasibility,
            report_known=self._report_known,
        )
        self._target = planner.config.search.trials
        self._proposals: dict[str, Proposal] = {}
        self._baselines: deque[TrialSpec] = deque()
        self.exhausted = self.gave_up = False
        self._ended_because: str | None = None
        self._refused_in_a_row = 0
        self._undecided: Proposal | None = None  # waiting for its forecast
        self._waits = False
        self._replay()
        self._unfinished = deque(ledger.with_state(INTERRUPTED))

    @property
    def over(self) -> bool:
        """Whether nothing is left to start, whatever becomes of the trials that run."""
        if self._ended_because is not None:
            return not self._ledger.with_state(RUNNING)
        nothing_waits = not self._unfinished and not self._baselines
        return nothing_waits and self._complete() and not self._ledger.with_state(RUNNING)

    def next(self, *, host_is_idle: bool = False) -> TrialRecord | None:
        """Returns the next trial, marked as running, or None if none can start now.

        `host_is_idle`: fewer trials run than there are hosts. A baseline then comes only if there
        is no other trial to start. Else it comes first: it waits for a host that has its base.
        """
        self._waits = False
        if self._ended_because is not None:
            return None
        record = self._next_unfinished()
        if record is None and not host_is_idle:
            record = self._next_baseline()
        if record is None and not self._waits and not self._enough():
            record = self._suggest()
        if record is None and not self._waits and self._enough():
            self._queue_remaining_baselines()
            record = self._next_baseline()
        if record is not None:
            record.state = RUNNING
        return record

    @property
    def waits_for_forecast(self) -> bool:
        """Whether the last call of `next` returned None because a forecast is being made."""
        return self._waits

    def end(self, reason: str) -> None:
        """Starts no further trial: the queue is over once nothing runs."""
        self._ended_because = reason

    @property
    def ended_early(self) -> bool:
        """Whether `end` was called."""
        return self._ended_because is not None

    def rung(self, record: TrialRecord, event: Event) -> None:
        """A running trial was evaluated at a rung."""
        proposal = self._proposals.get(record.trial_id)
        if proposal is not None:
            self._feasibility.update(record.trial_id, record.spec.knobs, fits=True)
            self._report(proposal, event)

    def ended(self, record: TrialRecord) -> None:
        """A trial reached the state in its record; the study is informed."""
        if record.is_trial and record.state == INFEASIBLE:
            self._feasibility.update(record.trial_id, record.spec.knobs, fits=False)
        if self._planner.learn(record):
            self._feasibility.drop_predicted()
        self._record(record)

    def _record(self, record: TrialRecord) -> None:
        if record.is_trial:
            infeasible = record.state == INFEASIBLE
            self._refused_in_a_row = self._refused_in_a_row + 1 if infeasible else 0
        proposal = self._proposals.pop(record.trial_id, None)
        if proposal is not None:
            self._tell(proposal, record)

    @property
    def end_reason(self) -> str | None:
        """Why the queue ended before the requested number of trials was done, or None."""
        if self._ended_because is not None:
            return self._ended_because
        if self.gave_up:
            return (
                "gave up: among many configurations none was left that fits this hardware; "
                "the report says why."
            )
        return "space exhausted: there are no more configurations." if self.exhausted else None

    def _tell(self, proposal: Proposal, record: TrialRecord) -> None:
        if record.state == FINISHED and record.rungs:
            self._search.tell(proposal, "complete", self._values(record.rungs[-1]))
        elif record.state == STOPPED:
            self._search.tell(proposal, "pruned")
        else:
            self._search.tell(proposal, "worst" if record.state == INFEASIBLE else "failed")

    def _report(self, proposal: Proposal, event: Event) -> None:
        self._search.report(proposal, units=event.units, value=self._values(event)[0])

    def _values(self, event: Event) -> list[float]:
        return [objective.value(event.metrics) for objective in self._objectives]

    def _replay(self) -> None:
        """Enters the results of earlier starts into the study."""
        for record in self._ledger:
            self._planner.learn(record)
            if not record.is_trial or not record.suggestion:
                continue
            proposal = self._search.replay(record.suggestion)
            self._search.launched(proposal, record.trial_id)
            for event in record.rungs:
                self._report(proposal, event)
            if record.state == INTERRUPTED:
                self._proposals[record.trial_id] = proposal
            else:
                self._tell(proposal, record)

    def _suggest(self) -> TrialRecord | None:
        """Returns a trial of a new configuration that may fit, or None if there is none now."""
        while not self.exhausted and not self.gave_up:
            if self._search.is_endless and self._refused_in_a_row >= REFUSALS_BEFORE_GIVING_UP:
                self.gave_up = True
                return None
            proposal = self._undecided or self._screening.next()
            if proposal is None:
                self._end_of_space()
            elif not self._is_decided(proposal):
                return None
            elif (record := self._trial_of(proposal)) is not None:
                return record
        return None

    def _is_decided(self, proposal: Proposal) -> bool:
        """Whether the proposal's forecast is available; if not, `next` returns None until it is."""
        spec = self._planner.spec(proposal.configuration)
        by_order = not proposal.is_given and self._feasibility.rules_out(
            spec.knobs, include_predicted=False
        )
        decided = bool(by_order) or self._is_ready(spec)
        self._undecided = None if decided else proposal
        return decided

    def _trial_of(self, proposal: Proposal) -> TrialRecord | None:
        """Creates the trial for a proposal. Returns None if it cannot run; if the same reason was
        already reported for an equivalent configuration, only the study is informed."""
        spec = self._planner.spec(proposal.configuration)
        is_free = not proposal.is_given and not self._search.is_ordered
        if is_free and self._screening.was_reported(spec):
            self._feasibility.add_predicted_misfit(spec.trial_id, spec.knobs)
            self._search.tell(proposal, "worst")
            self._refused_in_a_row += 1
            return None
        return self._launch(proposal)

    def _is_ready(self, spec: TrialSpec) -> bool:
        """Whether the trial's forecast is available; `next` returns None while it waits for one."""
        ready = self._planner.is_ready(spec)
        self._waits |= not ready
        return ready

    def _end_of_space(self) -> None:
        """No configuration that might fit is left; the reasons of the others are listed."""
        refused = self._ledger.with_state(INFEASIBLE)
        if self._search.is_endless and refused and not self._search.is_ordered:
            self.gave_up = True
            return
        self.exhausted = True
        if not self._search.is_ordered:
            for suggestion in itertools.islice(self._screening.rejected(), _LISTED):
                self._launch(self._search.impose(suggestion))

    def _launch(self, proposal: Proposal) -> TrialRecord | None:
        """Creates the trial of a new proposal. Returns None if this device rules it out."""
        spec = self._planner.spec(proposal.configuration)
        record = self._ledger.add(spec, proposal.suggestion)
        self._proposals[record.trial_id] = proposal
        self._search.launched(proposal, record.trial_id)
        if self._is_refused(record, by_order=not proposal.is_given):
            return None
        self._feasibility.launched(record.trial_id, spec.knobs)
        self._queue_baseline(proposal.configuration)
        return record

    def _is_refused(self, record: TrialRecord, *, by_order: bool = True) -> bool:
        """Whether the trial can't run; its result is then written and reported.

        A rejection of its own comes before one by the order of memory (`by_order`).
        """
        by_order = by_order and self._planner.known_rejection(record.spec) is None
        return (by_order and self._is_ruled_out(record)) or self._is_rejected(record)

    def _is_rejected(self, record: TrialRecord) -> bool:
        """Whether this device rejects the trial; its forecast, if there is one, is written."""
        rejection = self._planner.rejection(record.spec)
        forecast = self._planner.forecast(record.spec)
        if forecast is not None:
            record.folder.write_estimate(forecast.to_json())
        if rejection is None:
            return False
        if forecast is not None:
            self._feasibility.add_predicted_misfit(record.trial_id, record.spec.knobs)
        self._screening.rejections.add(rejection)
        self._refuse(record, rejection)
        return True

    def _is_ruled_out(self, record: TrialRecord) -> bool:
        """Whether a trial that needs less memory did not fit; the result is then written."""
        smaller = self._feasibility.rules_out(record.spec.knobs, include_predicted=False)
        if smaller is not None:
            self._refuse(record, f"needs at least the memory of {smaller}, which did not fit")
        return smaller is not None

    def _refuse(self, record: TrialRecord, reason: str) -> None:
        self._ledger.infeasible(record, reason)
        self._record(record)
        self._on_rejected(record)

    def _report_known(self, proposal: Proposal, known: TrialRecord) -> None:
        """Gives the study the result of a configuration that it proposed again."""
        if known.state in (RUNNING, INTERRUPTED):
            self._search.tell(proposal, "failed")  # no result yet, and samplers ignore it
            return
        for event in known.rungs:
            self._report(proposal, event)
        self._tell(proposal, known)

    def _next_unfinished(self) -> TrialRecord | None:
        """Returns an unfinished trial of an earlier start that this device can run, or None."""
        while self._unfinished and self._is_ready(self._unfinished[0].spec):
            record = self._unfinished.popleft()
            if not self._is_refused(record, by_order=record.is_trial):
                return record
        return None

    def _next_baseline(self) -> TrialRecord | None:
        while self._baselines:
            spec = self._baselines[0]
            known = self._ledger.get(spec.trial_id) is not None
            if not known and not self._is_ready(spec):
                return None
            self._baselines.popleft()
            if not known and not self._is_rejected(record := self._ledger.add(spec, {})):
                return record
        return None

    def _queue_baseline(self, configuration: Mapping[str, Any]) -> None:
        spec = self._planner.baseline(configuration)
        if self._ledger.get(spec.trial_id) is None and spec not in self._baselines:
            self._baselines.append(spec)

    def _queue_remaining_baselines(self) -> None:
        for configuration in self._planner.cell_configurations():
            self._queue_baseline(configuration)

    def _enough(self) -> bool:
        """Whether as many feasible configurations are done or running as were requested."""
        counted = self._ledger.count(RUNNING, FINISHED, STOPPED, FAILED, INTERRUPTED)
        return self.exhausted or self.gave_up or counted >= self._target

    def _complete(self) -> bool:
        """Whether no new configuration will be needed, whatever becomes of those that run."""
        done = self._ledger.count(FINISHED, STOPPED, FAILED)
        return self.exhausted or self.gave_up or done >= self._target
