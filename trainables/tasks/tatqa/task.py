"""The TAT-QA task: questions about a table and its paragraphs in annual reports (Zhu et al., 2021).

Its answers are spans of text, several spans, or numbers with a scale; scored by its official rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

from trainables.errors import InputError, did_you_mean
from trainables.tasks.prompts.page_layout import render_values
from trainables.tasks.prompts.templates import CONTEXTS, EVIDENCE, Template, load_template_for
from trainables.tasks.splits import check_disjoint, halve
from trainables.tasks.task import SPLITS, Example, Prompt
from trainables.tasks.tatqa import explanations, scoring
from trainables.tasks.tatqa.files import gold_of, read_examples

VERSION = "1"
_PROMPTS = {None: "tatqa", "default": "tatqa"}  # the default prompt asks for a bare number


@dataclass(frozen=True)
class Options:
    """What a search space may say of the task.

    `train`, `selection`, `report`: files; without `report`, half of the selection file's contexts
    are the report split. `context`: "full" (table and paragraphs) or "evidence" (what the
    annotators say that the answer is from). `prompt`: a named one or a template file.
    """

    train: str
    selection: str
    report: str | None = None
    context: str = "full"
    prompt: str | None = None
    target: str = "answer"


@dataclass(frozen=True)
class TATQA:
    """TAT-QA with its options; see trainables.tasks.task.Task for what each method promises."""

    name: ClassVar[str] = "tatqa"
    unit: ClassVar[str] = "examples"

    options: Options
    template: Template

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> TATQA:
        """Raises InputError with all that is wrong in the options and in the template."""
        faults = list(_option_faults(given))
        if faults:
            raise InputError(faults)
        options = Options(**given)
        name = _PROMPTS.get(options.prompt) or str(options.prompt)
        return cls(options, load_template_for(name, context=options.context))

    @property
    def version(self) -> str:
        rule = f"official-em-{scoring.RULE_VERSION}"
        return f"tatqa-{VERSION}/{rule}/{self.options.context}/{self.options.target}"

    @property
    def prompt_digest(self) -> str:
        return self.template.digest

    def load(self, split: str) -> list[Example]:
        """Reads and checks all splits once, so that what is wrong in any of them is told at once.

        Raises InputError for a file that is missing or malformed (with the line) and for splits
        that share a context or a question.
        """
        return list(self._splits[split])

    def prompt(self, example: Example) -> Prompt:
        return self.template.fill(render_values(example.record, context=self.options.context))

    def target(self, example: Example) -> str:
        return gold_of(example)[0].text

    def gold(self, example: Example) -> str:
        return gold_of(example)[0].text

    def score(self, example: Example, completion: str) -> dict[str, float]:
        """The official exact match and F1 of the completion's first line."""
        gold, is_computed = gold_of(example)
        return scoring.score_text(_answer_line(completion), gold, is_computed=is_computed).flags()

    def reason(self, example: Example, completion: str) -> str:
        gold, is_computed = gold_of(example)
        return explanations.of_tatqa(_answer_line(completion), gold, is_computed=is_computed)

    def metrics(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return scoring.rates(scores)

    def data_digest(self, split: str) -> str:
        digest = hashlib.sha256()
        for example in self._splits[split]:
            digest.update(json.dumps([example.id, example.record], sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        """`evidence` is "gold" where the prompts show only what the answer is from."""
        evidence = "gold" if self.options.context == EVIDENCE else "none"
        count = len(self._splits[split])
        return {"context": self.options.context, "evidence": evidence, "examples": count}

    @cached_property
    def _splits(self) -> Mapping[str, Sequence[Example]]:
        return _load(self.options)


def _answer_line(completion: str) -> str:
    return next(iter(completion.strip().splitlines()), "")


def _load(options: Options) -> Mapping[str, Sequence[Example]]:
    examples: dict[str, list[Example]] = {}
    faults: list[str] = []
    for split in SPLITS:
        path = getattr(options, split)
        try:
            examples[split] = read_examples(path) if path else []
        except InputError as error:
            faults += error.messages
    if faults:
        raise InputError(faults)
    if not options.report:
        halves = halve(examples["selection"], lambda each: each.group, file=options.selection)
        examples["selection"], examples["report"] = halves
    check_disjoint(examples, group=lambda each: each.group)
    check_disjoint(examples, group=lambda each: each.id)
    return examples


def _option_faults(given: Mapping[str, Any]) -> list[str]:
    names = [field.name for field in fields(Options)]
    faults = [
        f"data.{name}: unknown option.{did_you_mean(name, names)}"
        for name in given
        if name not in names
    ]
    faults += [
        f"data.{split}: missing; give a TAT-QA file."
        for split in SPLITS[:2]
        if not given.get(split)
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
