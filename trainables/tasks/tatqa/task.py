"""The TAT-QA task: questions about a table and its paragraphs in annual reports (Zhu et al., 2021).

Its answers are spans of text, several spans, or numbers with a scale, scored by the official rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from trainables.errors import InputError, did_you_mean
from trainables.spec.metric import TaskMetrics
from trainables.tasks import exact_match
from trainables.tasks.prompts import page_slices
from trainables.tasks.prompts.page_layout import render_values
from trainables.tasks.prompts.templates import CONTEXTS, EVIDENCE, Template, load_template_for
from trainables.tasks.source import Source
from trainables.tasks.splits import check_disjoint, files_read, halve, unknown_options
from trainables.tasks.task import SPLITS, Example, Prompt, Task, one_line
from trainables.tasks.tatqa import explanations, scoring
from trainables.tasks.tatqa.files import gold_of, read_examples
from trainables.tasks.tatqa.prompts import PROMPTS

VERSION = "1"


@dataclass(frozen=True)
class Options:
    """The options of the task, from `data` and the knobs `prompt` and `target`.

    `train`, `selection`, `report`: files; without `report`, half of the selection file's contexts
    are the report split. `context`: "full" (table and paragraphs) or "evidence" (what the answer
    is from, by the annotators). `prompt`: a named one or a template file. `asked`: the one split
    that is needed, where nothing is trained; other files are not read.
    """

    train: str | None = None
    selection: str | None = None
    report: str | None = None
    context: str = "full"
    prompt: str | None = None
    target: str = "answer"
    asked: str | None = None


@dataclass(frozen=True)
class TATQA(Task):
    """TAT-QA with its options; `trainables.tasks.task.Task` has the contract of each method."""

    name: ClassVar[str] = "tatqa"
    unit: ClassVar[str] = "examples"
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        (exact_match.EM_ACC, exact_match.EM_ACC_STRICT, exact_match.EM_ACC_NUMERIC, scoring.F1)
    )
    rule_version: ClassVar[str] = scoring.RULE_VERSION
    prompts: ClassVar[Mapping[str, str]] = PROMPTS
    source: ClassVar[Source | None] = Source(
        base_url="https://raw.githubusercontent.com/NExTplusplus/TAT-QA/"
        "870accc41953dcde885aabeb963d94aabdc0fbc3/dataset_raw/",
        blobs={
            "tatqa_dataset_train.json": "ec6a61be61ea7bb92c3278877e46e8488cc5203c",
            "tatqa_dataset_dev.json": "48075c812af3fe6698b1d5cb50d9dbf358d52784",
            "tatqa_dataset_test_gold.json": "3d5d3b691af572646ba9b1ac4d8f78c5dca09732",
        },
        splits={
            "train": "tatqa_dataset_train.json",
            "selection": "tatqa_dataset_dev.json",
            "report": "tatqa_dataset_test_gold.json",
        },
    )

    loads_one_split: ClassVar[bool] = True

    options: Options
    template: Template

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TATQA:
        """Raises InputError with all that is wrong in the options and in the template."""
        faults = list(_option_faults(options))
        if faults:
            raise InputError(faults)
        parsed = Options(**options)
        name = "default" if parsed.prompt is None else parsed.prompt
        return cls(parsed, load_template_for(name, PROMPTS, context=parsed.context))

    @classmethod
    def read_gold(cls, path: str | Path) -> list[Example]:
        return read_examples(path)

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, float]:
        """`no_marker`: the marker was required and is missing."""
        span = exact_match.prediction_span(prediction or "", marker_required=marker_required)
        return {**_score(example, span or ""), "no_marker": span is None}

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return scoring.rates(scores)

    @property
    def version(self) -> str:
        rule = f"official-em-{self.rule_version}"
        return f"tatqa-{VERSION}/{rule}/{self.options.context}/{self.options.target}"

    @property
    def prompt_digest(self) -> str:
        return self.template.digest

    @property
    def max_new_tokens(self) -> int:
        return 128

    def load(self, split: str) -> list[Example]:
        """Reads and checks all splits at the first call, to report all faults together.

        Raises InputError for a file that is missing or malformed (with the line) and for splits
        that share a context or a question.
        """
        return list(self._splits[split])

    def prompt(self, example: Example) -> Prompt:
        return self.template.fill(render_values(example.record, context=self.options.context))

    def target(self, example: Example) -> str:
        return one_line(gold_of(example)[0].text)

    def gold(self, example: Example) -> str:
        return gold_of(example)[0].text

    def score(self, example: Example, completion: str) -> dict[str, float]:
        """The official exact match and F1 of the completion's first line."""
        return _score(example, completion)

    def meaning(self, example: Example, completion: str) -> str:
        """The text that is compared, of the reading with a scale of its own if there is one."""
        del example
        reading = scoring.parse(_answer_line(completion))[-1]
        return scoring.normalized(scoring.comparable(reading)) if any(reading.items) else ""

    def reason(self, example: Example, completion: str) -> str:
        gold, is_computed = gold_of(example)
        return explanations.of_tatqa(_answer_line(completion), gold, is_computed=is_computed)

    def slices(self, example: Example) -> Mapping[str, str | float]:
        """`evidence` is what the annotators say; the answer's type is the question's kind."""
        source = str(example.record["answer_from"])
        return page_slices.of_page(self.prompt(example).text, example.record, source=source)

    def data_digest(self, split: str) -> str:
        digest = hashlib.sha256()
        for example in self._splits[split]:
            digest.update(json.dumps([example.id, example.record], sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        """`evidence` is "gold" if the prompts show only what the answer is from."""
        evidence = "gold" if self.options.context == EVIDENCE else "none"
        count = len(self._splits[split])
        return {"context": self.options.context, "evidence": evidence, "examples": count}

    @cached_property
    def _splits(self) -> Mapping[str, Sequence[Example]]:
        return _load(self.options)


def _score(example: Example, completion: str) -> dict[str, float]:
    gold, is_computed = gold_of(example)
    return scoring.score_text(_answer_line(completion), gold, is_computed=is_computed).flags()


def _answer_line(completion: str) -> str:
    return next(iter(completion.strip().splitlines()), "")


def _load(options: Options) -> Mapping[str, Sequence[Example]]:
    examples: dict[str, list[Example]] = {split: [] for split in SPLITS}
    faults: list[str] = []
    for split in files_read(options.asked, has_report=bool(options.report)):
        path = getattr(options, split)
        try:
            examples[split] = read_examples(path) if path else []
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    if not options.report and options.asked != "train":
        file = str(options.selection)
        halves = halve(examples["selection"], lambda each: each.group, file=file)
        examples["selection"], examples["report"] = halves
    check_disjoint(examples, group=lambda each: each.group)
    check_disjoint(examples, group=lambda each: each.id)
    return examples


def _option_faults(given: Mapping[str, Any]) -> list[str]:
    faults = unknown_options(given, [field.name for field in fields(Options)])
    faults += [
        f"data.{split}: missing; give a TAT-QA file."
        for split in files_read(given.get("asked"), has_report=bool(given.get("report")))
        if not given.get(split) and split != "report"
    ]
    for name in (*SPLITS, "prompt"):
        if given.get(name) is not None and not isinstance(given[name], str):
            faults.append(f"data.{name}: {given[name]!r} is not a path or a name.")
    context, target = given.get("context", "full"), given.get("target", "answer")
    if context not in CONTEXTS:
        faults.append(f"data.context: {context!r}.{did_you_mean(context, CONTEXTS)}")
    if target != "answer":
        faults.append(f"space.target: {target!r}: TAT-QA has no programs; use answer.")
    return faults
