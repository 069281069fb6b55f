"""Screening: which of a search's proposals are new and worth launching on this hardware.

The result of a known configuration is reported without running it, one that surely does not fit
is reported as the worst, and one that is unlikely to fit waits until no likelier one is left
(`orchestrator.search.feasibility`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.planning.planner import Planner
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.search.feasibility import FeasibilityModel
from orchestrator.search.searcher import Proposal, Search
from orchestrator.space.tree import Sample
from trainables.spec.trial_spec import TrialSpec

ASKS_BEFORE_FALLING_BACK = 20
_POOL = 200  # configurations among which the likeliest to fit is taken


@dataclass
class Screening:
    """Filters proposals.

    `report_known` gives the study the result of a configuration that it proposed again.
    `rejections` holds the reasons for which the device has rejected trials: one trial per reason
    is let through so that the reason is shown, others only where nothing else is left. Memory
    rules a proposal out only as far as predictions are available by now.
    """

    planner: Planner
    search: Search
    ledger: Ledger
    feasibility: FeasibilityModel
    report_known: Callable[[Proposal, TrialRecord], None]
    rejections: set[str] = field(default_factory=set)

    def next(self) -> Proposal | None:
        """Returns the next proposal to launch, or None if nothing that might fit was found."""
        return self._sampled() or self._likeliest()

    def rejected(self) -> Iterator[Mapping[str, Any]]:
        """Yields the suggestions of unknown configurations that can't run here."""
        for configuration, suggestion in self.search.unseen(self._is_known):
            if self._is_known_not_to_fit(configuration):
                yield suggestion

    def was_reported(self, spec: TrialSpec) -> bool:
        """Whether the trial is rejected for a reason that was already reported."""
        return self.planner.known_rejection(spec) in self.rejections

    def _sampled(self) -> Proposal | None:
        """Returns the search's next proposal worth launching, or None after too many others."""
        ordered = self.search.is_ordered
        for _ in itertools.count() if ordered else range(ASKS_BEFORE_FALLING_BACK):
            proposal = self.search.propose()
            if proposal is None or self._is_worth_launching(proposal):
                return proposal
        return None

    def _is_worth_launching(self, proposal: Proposal) -> bool:
        """Whether the proposal is new and worth launching; if not, the study is informed."""
        spec = self.planner.spec(proposal.configuration)
        known = self.ledger.get(spec.trial_id)
        if known is not None:
            self.report_known(proposal, known)
        elif proposal.is_given or self.search.is_ordered:
            return True
        elif self.feasibility.rules_out(spec.knobs) or self.was_reported(spec):
            self.search.tell(proposal, "worst")
        elif self.feasibility.is_worth_trying(self.feasibility.fit_probability(spec.knobs)):
            return True
        else:
            self.search.tell(
                proposal, "failed"
            )  # samplers ignore failed trials, and this one may fit
        return False

    def _likeliest(self) -> Proposal | None:
        """Returns the first unknown configuration worth launching, else the likeliest to fit."""
        if self.search.is_ordered:
            return None
        best: tuple[float, Sample] | None = None
        for place, found in enumerate(self.search.unseen(self._is_known_not_to_fit)):
            fit_probability = self.feasibility.fit_probability(self.planner.spec(found[0]).knobs)
            if best is None or fit_probability > best[0]:
                best = fit_probability, found
            if place == _POOL or self.feasibility.is_worth_trying(fit_probability):
                break
        return self.search.impose(best[1][1]) if best else None

    def _is_known_not_to_fit(self, configuration: Mapping[str, Any]) -> bool:
        """Whether its result is known, or an equivalent configuration was rejected."""
        spec = self.planner.spec(configuration)
        return bool(
            self.ledger.get(spec.trial_id)
            or self.planner.known_rejection(spec)
            or self.feasibility.rules_out(spec.knobs)
        )

    def _is_known(self, configuration: Mapping[str, Any]) -> bool:
        return self.ledger.get(self.planner.spec(configuration).trial_id) is not None
