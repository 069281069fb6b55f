"""Screening: of what a search proposes, what is new and worth a try on this hardware.

What is known is answered from its result, what surely does not fit is told as the worst, and
what hardly fits waits until nothing likelier is left (see fitting.py).
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
from orchestrator.space.enumeration import Sample
from trainables.spec.trial_spec import TrialSpec

ASKS_BEFORE_FALLING_BACK = 20
_POOL = 200  # configurations among which the likeliest to fit is taken


@dataclass
class Screening:
    """`answer` tells the study the result of a trial that it asked for again.

    `rejections` holds the reasons for which the device has ruled out a trial by now: for each,
    one is let through, so that it is said; the others only where nothing else is left. Whether
    memory rules a proposal out is told here only of what has been predicted by now.
    """

    planner: Planner
    search: Search
    ledger: Ledger
    fitting: FeasibilityModel
    answer: Callable[[Proposal, TrialRecord], None]
    rejections: set[str] = field(default_factory=set)

    def next(self) -> Proposal | None:
        """The next proposal to launch; None: nothing that might fit is left or was found."""
        return self._sampled() or self._likeliest()

    def rejected(self) -> Iterator[Mapping[str, Any]]:
        """The suggestions of unknown configurations that can't run here, to be listed."""
        for configuration, suggestion in self.search.unseen(self._is_known):
            if self._is_known_not_to_fit(configuration):
                yield suggestion

    def was_reported(self, spec: TrialSpec) -> bool:
        """Whether the trial can't run, for a reason that another one was refused for."""
        return self.planner.known_rejection(spec) in self.rejections

    def _sampled(self) -> Proposal | None:
        """The search's own next proposal, if it soon has one that is worth a try."""
        ordered = self.search.is_ordered
        for _ in itertools.count() if ordered else range(ASKS_BEFORE_FALLING_BACK):
            proposal = self.search.propose()
            if proposal is None or self._takes(proposal):
                return proposal
        return None

    def _takes(self, proposal: Proposal) -> bool:
        """Whether it is new and worth a try; if not, the study is told why."""
        spec = self.planner.spec(proposal.configuration)
        known = self.ledger.get(spec.trial_id)
        if known is not None:
            self.answer(proposal, known)
        elif proposal.is_given or self.search.is_ordered:
            return True
        elif self.fitting.rules_out(spec.knobs) or self.was_reported(spec):
            self.search.tell(proposal, "worst")
        elif self.fitting.is_worth_trying(self.fitting.fit_probability(spec.knobs)):
            return True
        else:
            self.search.tell(proposal, "failed")  # samplers ignore it: it may well fit
        return False

    def _likeliest(self) -> Proposal | None:
        """The first of many unknown configurations that is worth a try, else the likeliest."""
        if self.search.is_ordered:
            return None
        best: tuple[float, Sample] | None = None
        for place, found in enumerate(self.search.unseen(self._is_known_not_to_fit)):
            fit_probability = self.fitting.fit_probability(self.planner.spec(found[0]).knobs)
            if best is None or fit_probability > best[0]:
                best = fit_probability, found
            if place == _POOL or self.fitting.is_worth_trying(fit_probability):
                break
        return self.search.impose(best[1][1]) if best else None

    def _is_known_not_to_fit(self, configuration: Mapping[str, Any]) -> bool:
        """Whether it is known at all, or by its like."""
        spec = self.planner.spec(configuration)
        return bool(
            self.ledger.get(spec.trial_id)
            or self.planner.known_rejection(spec)
            or self.fitting.rules_out(spec.knobs)
        )

    def _is_known(self, configuration: Mapping[str, Any]) -> bool:
        return self.ledger.get(self.planner.spec(configuration).trial_id) is not None
