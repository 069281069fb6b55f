"""FiNER-ORD: the persons, locations and organizations of sentences of financial news.

Shah et al. (2023). A folder has the published files train.csv, val.csv and test.csv, in any folders
below it and perhaps gzipped: a row for each token, with the numbers of its document and sentence.
The target `answer` is the list of a sentence's entities, `labels` is one label a line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from trainables.metrics.of_entities import written
from trainables.spec.checks import Check
from trainables.tasks.financial.folder import find_file, folder_fault, folder_of
from trainables.tasks.financial.token_labels import label_lines, tags_of_lines
from trainables.tasks.own_data.table import Table, read_table
from trainables.tasks.own_data.tagged_rows import entities
from trainables.tasks.own_data.tagging import Tagging
from trainables.tasks.source import Source
from trainables.tasks.task import Example

_PROMPT = """A sentence of financial news:
{input}
List its entities in order, as `text: label; text: label`, or answer none. Labels: {labels}.
Entities:"""
_LINES_PROMPT = """Each line has a word of a sentence of financial news:
{tokens}
Label each word, in a line of its own, as {labels} or other.
An entity's first word has _b after its label, the words after it _i.
Labels:
"""
_LIST, _LINES = "answer", "labels"  # the targets
_KEPT = "tags of tokens"
_LABELS = {"PER": ("person",), "LOC": ("location",), "ORG": ("organization",)}
_NUMBERED = ("O", *(f"{label}_{place}" for label in _LABELS for place in "BI"))
_AS_PUBLISHED: Mapping[str, Any] = {
    "sentence": ("doc_idx", "sent_idx"),
    "kept": _KEPT,
    "tags": {str(number): tag for number, tag in enumerate(_NUMBERED)},
}


@dataclass(frozen=True)
class FiNER(Tagging):
    """The published validation split is the selection split, the test split the report split."""

    name: ClassVar[str] = "finer"
    source: ClassVar[Source | None] = Source(
        base_url="https://raw.githubusercontent.com/gtfintechlab/FiNER-ORD/"
        "3c41d89adb1a4becd1b47f52ddd7a72454249c3a/data/",
        blobs={
            "train/train.csv": "721335c8d18a4a595234c94a12da7028ca6362e2",
            "train/val.csv": "cf331c1159a105db1b3568f7d215c2e1eaf1f120",
            "test/test.csv": "d3087024ff9e89b94eb70301ab1438c949331ba4",
        },
        option="folder",
    )
    prompts: ClassVar[Mapping[str, str]] = {"default": _PROMPT, "labels": _LINES_PROMPT}
    targets: ClassVar[tuple[str, ...]] = (_LIST, _LINES)
    unread_options: ClassVar[tuple[str, ...]] = (
        *Tagging.unread_options,
        *("train", "selection", "report", "file", "split", "columns", "allow_duplicates"),
    )
    more_options: ClassVar[Mapping[str, Check]] = {"folder": folder_fault}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        asked = {"prompt": "default", "target": _LIST, **options}
        prompt = cls.canonical_prompt(str(asked["prompt"]), str(asked["target"]))
        made = super().from_options({**options, "prompt": prompt})
        known = replace(
            made.options,
            columns={"input": "gold_token", "target": "gold_label"},
            labels=made.options.labels or _LABELS,
            allow_duplicates=True,  # short sentences of news come again
        )
        return replace(made, options=known, more={**made.more, **_AS_PUBLISHED})

    @classmethod
    def canonical_prompt(cls, prompt: str, target: str) -> str:
        """The default prompt depends on the target."""
        return "labels" if (prompt, target) == ("default", _LINES) else prompt

    @property
    def stop(self) -> str | None:
        """Lines end with the model's end token only."""
        return None if self._writes_lines else super().stop

    def target(self, example: Example) -> str:
        if not self._writes_lines:
            return super().target(example)
        return label_lines(example.record["columns"][_KEPT].split(), self._labels)

    def facts(self, split: str) -> dict[str, str | int]:
        """`also_trained`: how many of the split's sentences are in the train split as well."""
        trained = {each.group for each in self.load("train")}
        shared = sum(each.group in trained for each in self.load(split)) if split != "train" else 0
        return {**super().facts(split), "also_trained": shared}

    @property
    def _writes_lines(self) -> bool:
        return self.options.target == _LINES

    def _read_answer(self, example: Example, completion: str) -> str:
        if not self._writes_lines:
            return super()._read_answer(example, completion)
        tokens = example.record["question"].split()
        tags = tags_of_lines(completion, self._labels, tokens=len(tokens))
        return "" if tags is None else written(entities(tokens, tags))

    def _values(self, example: Example) -> dict[str, Any]:
        """Without the tags, which are the answer."""
        tokens = "\n".join(example.record["question"].split())
        values = {"tokens": tokens, **super()._values(example)}
        return {name: value for name, value in values.items() if name != _KEPT}

    @cached_property
    def _read(self) -> Table:
        train, selection, report = (
            str(find_file(folder_of(self.more), name)) for name in ("train", "val", "test")
        )
        options = replace(self.options, train=train, selection=selection, report=report)
        return read_table(options, prepared=self._sentences)
