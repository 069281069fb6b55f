"""The task `tagging`: the entities of a sentence with their labels, on a user's own files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from trainables.metrics.of_entities import NO_ENTITIES, OF_ENTITIES, entities_of, listed, written
from trainables.spec.checks import Check
from trainables.spec.metric import TaskMetrics
from trainables.tasks.exact_match import prediction_span
from trainables.tasks.own_data.own_task import OwnTask
from trainables.tasks.own_data.rows import Row
from trainables.tasks.own_data.table import Table, found_columns, read_table
from trainables.tasks.own_data.tagged_rows import TaggedColumns, sentences
from trainables.tasks.task import NOTHING, Example

VERSION = "1"
DEFAULT = (
    "{input}\nList its entities, as `text: label; text: label`, or answer none. "
    "Labels: {labels}.\nEntities:"
)


def _sentence(value: Any) -> str | None:
    names = value if isinstance(value, list | tuple) else [value]
    if names and all(isinstance(name, str) and name for name in names):
        return None
    return f"data.sentence: got {value!r}; needs the columns that name a token's sentence."


def _tags(value: Any) -> str | None:
    if isinstance(value, Mapping) and value and all(isinstance(tag, str) for tag in value.values()):
        return None
    return f"data.tags: got {value!r}; needs the tag of each value, as {{0: O, 1: B-PER}}."


@dataclass(frozen=True)
class Tagging(OwnTask):
    """A model learns to write the list of a sentence's entities, in the order of the sentence."""

    name: ClassVar[str] = "tagging"
    kind: ClassVar[str] = "entities"
    default_metrics: ClassVar[tuple[str, ...]] = (
        "entity_f1",
        "all_entities",
        "entity_precision",
        "entity_recall",
        "not_followed_rate",
    )
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        tuple(OF_ENTITIES[name].spec for name in default_metrics)
    )
    unread_options: ClassVar[tuple[str, ...]] = ("stop", "answer")
    loads_one_split: ClassVar[bool] = False  # the labels are those of the training rows
    more_options: ClassVar[Mapping[str, Check]] = {"sentence": _sentence, "tags": _tags}
    prompts: ClassVar[Mapping[str, str]] = {"default": DEFAULT}

    @property
    def version(self) -> str:
        labels = json.dumps(self._labels, sort_keys=True)
        digest = hashlib.sha256(labels.encode()).hexdigest()[:12]
        return f"tagging-{VERSION}/{digest}/{','.join(self._measured)}"

    def target(self, example: Example) -> str:
        """The entities with the first of the words that are written for each label."""
        found = listed(self.gold(example))
        return written([(text, self._labels[label][0]) for text, label in found])

    def score(self, example: Example, completion: str) -> dict[str, Any]:
        """Whatever the case of a label; one that is unknown makes its entity wrong."""
        return {**entities_of(self.gold(example), self._read_answer(completion))}

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, Any]:
        """Labels are those of the gold file, as they are written there."""
        answer = prediction_span(prediction or "", marker_required=marker_required) or ""
        return {**entities_of(str(example.record["target"]), answer)}

    def meaning(self, example: Example, completion: str) -> str:
        """The entities, in whatever order they were written."""
        del example
        found = listed(self._read_answer(completion))
        is_read = found or not entities_of("", completion)["not_followed"]
        return written(sorted(found)) if is_read else ""

    def reason(self, example: Example, completion: str) -> str:
        if not completion.strip():
            return NOTHING
        found = self._read_answer(completion)
        score = self.score(example, completion)
        if score["not_followed"]:
            return f"has no list of entities, and is not {NO_ENTITIES}"
        return f"{score['entities_right']} of {score['entities_gold']} in {found!r:.80}"

    def _read_answer(self, completion: str) -> str:
        """The answer with labels in the place of the words that are written for them."""
        labels = {
            word.casefold(): label
            for label, words in self._labels.items()
            for word in (label, *words)
        }
        found = listed(completion)
        known = [(text, labels.get(word.casefold(), word)) for text, word in found]
        return written(known) if known else completion

    def _values(self, example: Example) -> dict[str, Any]:
        shown = ", ".join(words[0] for words in self._labels.values())
        return {"labels": shown, **super()._values(example)}

    @cached_property
    def _labels(self) -> Mapping[str, tuple[str, ...]]:
        if self.options.labels is not None:
            return self.options.labels
        found = {label for each in self._read.splits["train"] for _, label in _entities(each)}
        return {label: (label,) for label in sorted(found)}

    def _faults(self, table: Table) -> list[str]:
        of_train = "." if self.options.labels else ", the labels of the training rows."
        wrong = [
            f"{example.record['place']}: the label {label!r} is none of "
            f"{', '.join(self._labels)}{of_train}"
            for split in table.splits.values()
            for example in split
            for label in sorted({label for _, label in _entities(example)} - set(self._labels))
        ]
        return [*super()._faults(table), *wrong]

    @cached_property
    def _read(self) -> Table:
        return read_table(self.options, prepared=self._sentences)

    def _sentences(self, rows: Sequence[Row]) -> list[Row]:
        named = self.more.get("sentence", ())
        columns = found_columns(rows, self.options.columns)
        meanings = self.more.get("tags", {})
        return sentences(
            rows,
            TaggedColumns(
                tokens=columns["input"],
                tags=columns["target"],
                sentence=(named,) if isinstance(named, str) else tuple(named),
                meanings={str(value): tag for value, tag in meanings.items()},
            ),
        )


def _entities(example: Example) -> list[tuple[str, str]]:
    return listed(str(example.record["target"]))
