"""The task `classification`: one of some labels for each input, on a user's own files."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from trainables.metrics.metric import NO_LABEL
from trainables.metrics.of_labels import OF_LABELS, labels_of
from trainables.spec.metric import TaskMetrics
from trainables.tasks.exact_match import prediction_span
from trainables.tasks.own_data.options import GENERATE
from trainables.tasks.own_data.own_task import OwnTask
from trainables.tasks.own_data.table import Table
from trainables.tasks.task import NOTHING, Answering, Example

VERSION = "1"
DEFAULT = "{input}\nAnswer with one of: {labels}.\nAnswer:"
_BEFORE_A_LABEL = " \t\"'`*([{-:>"


@dataclass(frozen=True)
class Classification(OwnTask):
    """A label is learned as the first of the words that are written for it (its verbalizers)."""

    name: ClassVar[str] = "classification"
    kind: ClassVar[str] = "labels"
    default_metrics: ClassVar[tuple[str, ...]] = (
        "accuracy",
        "macro_f1",
        "mcc",
        "not_followed_rate",
    )
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        tuple(OF_LABELS[name].spec for name in default_metrics), of_labels=True
    )
    knobs: ClassVar[tuple[str, ...]] = ("prompt", "target", "answer")
    usual_labels: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # {}: those of the training rows
    unread_options: ClassVar[tuple[str, ...]] = ("stop",)
    loads_one_split: ClassVar[bool] = False  # the labels are those of the training rows
    prompts: ClassVar[Mapping[str, str]] = {"default": DEFAULT}

    @property
    def version(self) -> str:
        labels = json.dumps(self._labels, sort_keys=True)
        digest = hashlib.sha256(labels.encode()).hexdigest()[:12]
        return f"{self.name}-{VERSION}/{digest}/{','.join(self._measured)}"

    @property
    def answering(self) -> Answering:
        answer = self.options.answer
        return Answering.GENERATION if answer == GENERATE else Answering(answer)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order in which they are given or else of the alphabet."""
        return tuple(self._labels)

    def choices(self, example: Example) -> tuple[str, ...]:
        """What is written for each label."""
        del example
        return tuple(words[0] for words in self._labels.values())

    def target(self, example: Example) -> str:
        return self._labels[self.gold(example)][0]

    def gold(self, example: Example) -> str:
        label = _label_of(str(example.record["target"]), self._labels)
        assert label is not None
        return label

    def score(self, example: Example, completion: str) -> dict[str, Any]:
        """The first words count; a completion that begins with no label is wrong."""
        return {**labels_of(self.gold(example), answered_label(completion, self._labels))}

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, Any]:
        """Labels of a gold file are what it says; the prediction begins with it, or not."""
        gold = str(example.record["target"])
        answer = prediction_span(prediction or "", marker_required=marker_required) or ""
        return {**labels_of(gold, answered_label(answer, {gold: (gold,)}) or answer.strip())}

    def meaning(self, example: Example, completion: str) -> str:
        del example
        return answered_label(completion, self._labels)

    def reason(self, example: Example, completion: str) -> str:
        if not completion.strip():
            return NOTHING
        found = answered_label(completion, self._labels)
        return f"read as {found!r}" if found else f"names none of {', '.join(self._labels)}"

    def trivial_baselines(self, examples: Sequence[Example]) -> dict[str, float]:
        """The commonest label of the training examples as the answer to everything."""
        counts = Counter(self.gold(example) for example in self.load("train") or examples)
        label = max(sorted(counts), key=lambda each: counts[each])
        rows = [labels_of(self.gold(example), label) for example in examples]
        primary = next(iter(self._measured.values()))
        return {f"always {label}": primary.value(rows)} if rows else {}

    def _values(self, example: Example) -> dict[str, Any]:
        shown = ", ".join(words[0] for words in self._labels.values())
        return {"labels": shown, **super()._values(example)}

    @cached_property
    def _labels(self) -> Mapping[str, tuple[str, ...]]:
        if self.options.labels is not None:
            return self.options.labels
        if self.usual_labels:
            return self.usual_labels
        return {label: (label,) for label in sorted(self._found)}

    @cached_property
    def _found(self) -> Mapping[str, str]:
        """The labels of the training rows, each with the first place where it is."""
        found: dict[str, str] = {}
        for example in self._read.splits["train"]:
            found.setdefault(str(example.record["target"]).strip(), example.record["place"])
        return found

    def _faults(self, table: Table) -> list[str]:
        wrong = [
            f"{example.record['place']}: the label {example.record['target']!r} is none of "
            f"{', '.join(self._labels)}"
            + (
                "."
                if self.options.labels or self.usual_labels
                else ", the labels of the training rows."
            )
            for split in table.splits.values()
            for example in split
            if _label_of(str(example.record["target"]), self._labels) is None
        ]
        return [*super()._faults(table), *self._alike(), *wrong]

    def _alike(self) -> Iterator[str]:
        """Labels of the training rows between which no answer could decide."""
        if self.options.labels or self.usual_labels:
            return
        first: dict[str, str] = {}
        for label, place in self._found.items():
            other = first.setdefault(label.casefold(), label)
            if other != label:
                yield (
                    f"{place}: the label {label!r} and {other!r}, at {self._found[other]}, differ "
                    "in case only. Write them alike, or name the labels in data.labels."
                )


def answered_label(completion: str, labels: Mapping[str, Sequence[str]]) -> str:
    """The label whose words the completion begins with, in any case; NO_LABEL if there is none.

    Of several that match, the one with the longest words. Quotes, brackets and bullets before a
    label are passed over, unless they are the beginning of one.
    """
    whole = _begun(completion.strip(), labels)
    return whole or _begun(completion.lstrip(_BEFORE_A_LABEL + "\n"), labels)


def _begun(text: str, labels: Mapping[str, Sequence[str]]) -> str:
    begun = text.casefold()
    matching = [
        (len(word), label)
        for label, words in labels.items()
        for word in words
        if begun.startswith(word.casefold()) and not begun[len(word.casefold()) :][:1].isalnum()
    ]
    return max(matching)[1] if matching else NO_LABEL


def _label_of(written: str, labels: Mapping[str, Sequence[str]]) -> str | None:
    """The label that a value of a file names: itself, or one of the words that are written."""
    if written in labels:
        return written
    given = written.strip().casefold()
    return next(
        (
            label
            for label, words in labels.items()
            if given in (label.casefold(), *(word.casefold() for word in words))
        ),
        None,
    )
