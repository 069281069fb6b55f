"""PageRetrieval: what the prompts of a task show of reports, and how much of the evidence it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables.spec.metric import MetricSpec
from trainables.tasks.retrieval.index import Index, Retrieval
from trainables.tasks.retrieval.places import found_places, new_index
from trainables.tasks.retrieval.units import Page
from trainables.tasks.task import Example

RECALL = MetricSpec(
    "evidence_recall", "evidence recall", format=".1%", per_question_key="evidence_recall"
)
COMPLETE = MetricSpec(
    "evidence_complete",
    "questions with all evidence",
    format=".1%",
    per_question_key="evidence_complete",
    is_share_of_questions=True,
)
OF_RETRIEVAL = (RECALL, COMPLETE)
QUESTIONS = "evidence_questions"  # the key of how many questions have gold evidence


@dataclass(frozen=True)
class Found:
    """What was retrieved for a question: its page, and the places of the units in the index."""

    index: Index
    page: Page
    places: Sequence[int]


@dataclass(frozen=True)
class PageRetrieval:
    """Retrieves units for the examples of `splits`: the page of a question is `page_of` it, and
    `gold_of(example, page)` has the places of each of its gold facts there, of which any will do;
    nothing if they are not known.

    With the scope "corpus" a question is answered from the pages of its own split.
    """

    retrieval: Retrieval
    splits: Mapping[str, Sequence[Example]]
    page_of: Callable[[Example], Page]
    gold_of: Callable[[Example, Page], Sequence[frozenset[int]]]
    _found: dict[str, Found] = field(default_factory=dict)

    def prepare(self) -> None:
        """Searches for the questions of all splits, unless this node has their places."""
        for examples in self.splits.values():
            for first in examples[:1]:
                self._retrieved(first)

    def text(self, example: Example) -> str:
        """The retrieved units, a line each, in the order of the text."""
        found = self._retrieved(example)
        texts = found.index.texts(found.page)
        return "\n".join(texts[place] for place in found.places)

    def scores(self, example: Example) -> dict[str, float]:
        """The share of the question's gold facts that are retrieved, and whether that is all;
        nothing for a question whose facts are not known."""
        found = self._retrieved(example)
        gold = self.gold_of(example, found.page)
        if not gold:
            return {}
        start = found.index.start(found.page)
        retrieved = {place - start for place in found.places}
        share = sum(not retrieved.isdisjoint(fact) for fact in gold) / len(gold)
        return {RECALL.per_question_key: share, COMPLETE.per_question_key: share == 1}

    def _retrieved(self, example: Example) -> Found:
        if example.id not in self._found:
            examples = next(each for each in self.splits.values() if example in each)
            asked = [(str(each.record["question"]), self.page_of(each)) for each in examples]
            index = new_index(self.retrieval, asked)
            places = found_places(index, asked)
            for each, (_, page), best in zip(examples, asked, places, strict=True):
                self._found[each.id] = Found(index, page, best)
        return self._found[example.id]


def recall_rates(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`evidence_recall` and `evidence_complete` of a split, over the questions that have them, and
    how many those are; nothing without any."""
    having = [each for each in scores if RECALL.per_question_key in each]
    if not having:
        return {}
    return {
        **{
            spec.name: sum(each[spec.per_question_key] for each in having) / len(having)
            for spec in OF_RETRIEVAL
        },
        QUESTIONS: float(len(having)),
    }
