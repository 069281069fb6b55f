"""The task `completion`: a text that follows a prompt, on a user's own files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from trainables.errors import InputError
from trainables.metrics.of_text import OF_TEXT
from trainables.metrics.registry import scored
from trainables.spec.checks import Check
from trainables.spec.metric import TaskMetrics
from trainables.spec.rows.task_knobs import EVIDENCE, FULL, RETRIEVED
from trainables.tasks.exact_match import prediction_span
from trainables.tasks.own_data.documents import FROM, GOLD, Documents, document_faults
from trainables.tasks.own_data.own_task import OwnTask
from trainables.tasks.own_data.table import Table
from trainables.tasks.retrieval.options import RETRIEVAL_KNOBS, SECTION, retrieval_of
from trainables.tasks.retrieval.page_retrieval import OF_RETRIEVAL, PageRetrieval, recall_rates
from trainables.tasks.task import NOTHING, Example, Task

VERSION = "1"


def _checked_together(value: Any) -> None:
    """Options that `document_faults` checks."""
    del value


@dataclass(frozen=True)
class Completion(OwnTask):
    """The answer is compared with the target as a text; a prompt may show documents that were
    retrieved, as {retrieved}."""

    name: ClassVar[str] = "completion"
    kind: ClassVar[str] = "text"
    default_metrics: ClassVar[tuple[str, ...]] = ("exact_match", "token_f1")
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        tuple(OF_TEXT[name].spec for name in default_metrics), of_retrieval=OF_RETRIEVAL
    )
    knobs: ClassVar[tuple[str, ...]] = (*Task.knobs, *RETRIEVAL_KNOBS)
    unread_options: ClassVar[tuple[str, ...]] = ("labels", "answer")
    more_options: ClassVar[Mapping[str, Check]] = dict.fromkeys(
        (*RETRIEVAL_KNOBS, SECTION), _checked_together
    )
    prompts: ClassVar[Mapping[str, str]] = {"default": "{input}"}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        faults = document_faults(options)
        try:
            task = super().from_options(options)
        except InputError as error:
            raise InputError([*faults, *error.messages]) from error
        if faults:
            raise InputError(faults)
        return task

    @classmethod
    def metrics_of(cls, options: Mapping[str, Any]) -> TaskMetrics:
        return replace(super().metrics_of(options), of_retrieval=OF_RETRIEVAL)

    @property
    def used_metrics(self) -> TaskMetrics:
        return replace(super().used_metrics, of_retrieval=OF_RETRIEVAL)

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {**super().aggregate(scores), **recall_rates(scores)}

    @property
    def version(self) -> str:
        own = f"completion-{VERSION}/{self.options.stop!r}/{','.join(self._measured)}"
        if self._documents is None:
            return own
        retrieval = retrieval_of(self.more)
        return f"{own}/{self._context if retrieval is None else retrieval.version}"

    def prepare(self) -> None:
        if self._retrieval:
            self._retrieval.prepare()

    def target(self, example: Example) -> str:
        return str(example.record["target"])

    def score(self, example: Example, completion: str) -> dict[str, Any]:
        found = self._retrieval.scores(example) if self._retrieval else {}
        return {**scored(self._measured, self.gold(example), completion), **found}

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, Any]:
        """By every metric of texts; without a marker the whole output counts."""
        marked = prediction_span(prediction or "", marker_required=True)
        whole = "" if marker_required else prediction or ""
        answer = whole if marked is None else marked
        return scored(OF_TEXT, str(example.record["target"]), answer)

    def reason(self, example: Example, completion: str) -> str:
        if not completion.strip():
            return NOTHING
        wanted = self.gold(example)
        return f"wrote {completion!r:.60}, and {wanted!r:.60} is wanted"

    def data_digest(self, split: str) -> str:
        own = super().data_digest(split)
        if self._documents is None:
            return own
        documents = self._documents.digest(self.load(split))
        return hashlib.sha256(f"{own}\n{documents}".encode()).hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        """With documents also `context` and `evidence`, as those of FinQA."""
        if self._documents is None:
            return super().facts(split)
        evidence = {EVIDENCE: "gold", RETRIEVED: RETRIEVED}.get(self._context, "none")
        return {**super().facts(split), "context": self._context, "evidence": evidence}

    @property
    def _context(self) -> str:
        return str(self.more.get("context", FULL))

    def _values(self, example: Example) -> dict[str, Any]:
        values = super()._values(example)
        if self._documents is None:
            return values
        retrieval = self._retrieval
        shown = (
            self._documents.shown(example, self._context)
            if retrieval is None
            else retrieval.text(example)
        )
        return {**values, RETRIEVED: shown}

    def _names(self, example: Example) -> list[str]:
        """Nothing is retrieved for them: the rows are checked first."""
        return [*super()._values(example), *([RETRIEVED] if self._documents else [])]

    def _faults(self, table: Table) -> list[str]:
        faults = super()._faults(table)
        if faults or self._documents is None:
            return faults
        if RETRIEVED not in self.text.columns:
            return [f"space.prompt: shows no {{{RETRIEVED}}}, as which data.{SECTION} is shown."]
        examples = [example for split in table.splits.values() for example in split]
        return list(self._documents.faults(examples))

    @cached_property
    def _documents(self) -> Documents | None:
        section = self.more.get(SECTION)
        return Documents(section[FROM], section.get(GOLD)) if section else None

    @cached_property
    def _retrieval(self) -> PageRetrieval | None:
        retrieval = retrieval_of(self.more)
        if retrieval is None or self._documents is None:
            return None
        documents = self._documents
        splits = self._table.splits
        return PageRetrieval(retrieval, splits, documents.page_of, documents.gold_of)
