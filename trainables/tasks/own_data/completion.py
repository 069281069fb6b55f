"""The task `completion`: a text that follows a prompt, on a user's own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from trainables.metrics.of_text import OF_TEXT
from trainables.metrics.registry import scored
from trainables.spec.metric import TaskMetrics
from trainables.tasks.exact_match import prediction_span
from trainables.tasks.own_data.own_task import OwnTask
from trainables.tasks.task import NOTHING, Example

VERSION = "1"


@dataclass(frozen=True)
class Completion(OwnTask):
    """The answer is compared with the target as a text."""

    name: ClassVar[str] = "completion"
    kind: ClassVar[str] = "text"
    default_metrics: ClassVar[tuple[str, ...]] = ("exact_match", "token_f1")
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        tuple(OF_TEXT[name].spec for name in default_metrics)
    )
    unread_options: ClassVar[tuple[str, ...]] = ("labels", "answer")
    prompts: ClassVar[Mapping[str, str]] = {"default": "{input}"}

    @property
    def version(self) -> str:
        return f"completion-{VERSION}/{self.options.stop!r}/{','.join(self._measured)}"

    def target(self, example: Example) -> str:
        return str(example.record["target"])

    def score(self, example: Example, completion: str) -> dict[str, Any]:
        return scored(self._measured, self.gold(example), completion)

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
