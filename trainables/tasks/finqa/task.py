"""The FinQA task: numerical questions about pages of annual reports (Chen et al., EMNLP 2021).

The data are FinQA's files, official or flat, or generated records of the same form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from trainables.spec.metric import TaskMetrics
from trainables.tasks import exact_match
from trainables.tasks.finqa import explanations, programs, trivial_baselines
from trainables.tasks.finqa.files import read_gold
from trainables.tasks.finqa.options import TARGETS, Options, parse_options
from trainables.tasks.finqa.prompts import DEFAULT, PROGRAM, PROMPTS
from trainables.tasks.finqa.splits import Split, load_splits
from trainables.tasks.prompts import page_slices
from trainables.tasks.prompts.page_layout import render_values
from trainables.tasks.prompts.templates import EVIDENCE, Template, load_template_for
from trainables.tasks.source import Source
from trainables.tasks.task import Example, Prompt, Task, one_line

VERSION = "1"

_DEFAULT_PROMPTS = {"answer": DEFAULT, "program": PROGRAM}
_MAX_NEW_TOKENS = {"answer": 32, "program": 128}


@dataclass(frozen=True)
class FinQA(Task):
    """FinQA with its options; `trainables.tasks.task.Task` has the contract of each method."""

    name: ClassVar[str] = "finqa"
    unit: ClassVar[str] = "examples"
    metrics: ClassVar[TaskMetrics] = TaskMetrics(
        (exact_match.EM_ACC, exact_match.EM_ACC_STRICT, exact_match.EM_ACC_NUMERIC),
        trivial=exact_match.EM_ACC_NUMERIC.name,
        other_columns=("f1",),  # always empty: TAT-QA's files have the same columns
    )
    rule_version: ClassVar[str] = exact_match.RULE_VERSION
    prompts: ClassVar[Mapping[str, str]] = PROMPTS
    targets: ClassVar[tuple[str, ...]] = TARGETS
    source: ClassVar[Source | None] = Source(
        base_url="https://raw.githubusercontent.com/czyssrs/FinQA/"
        "0f16e2867befa6840783e58be38c9efb9229d742/dataset/",
        blobs={
            "train.json": "a6c2c5a60f9abe3fba5a793cc4d9e1dee2e09209",
            "dev.json": "970f239f591c782b17df420c0d343b780737f3da",
            "test.json": "59958c7c3bb3b21f4dff6bc912a0fe0ae710aee0",
        },
        splits={"train": "train.json", "selection": "dev.json", "report": "test.json"},
    )

    loads_one_split: ClassVar[bool] = True

    options: Options
    template: Template

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> FinQA:
        """Raises InputError with all that is wrong in the options and in the template."""
        parsed = parse_options(options)
        name = parsed.prompt or _DEFAULT_PROMPTS[parsed.target]
        return cls(parsed, load_template_for(name, PROMPTS, context=parsed.context))

    @classmethod
    def canonical_prompt(cls, prompt: str, target: str) -> str:
        """The default prompt depends on the target."""
        return _DEFAULT_PROMPTS.get(target, prompt) if prompt == DEFAULT else prompt

    @classmethod
    def read_gold(cls, path: str | Path) -> list[Example]:
        """Reads only `id` and `exe_ans` of each record."""
        return [
            Example(id=name, record={"exe_ans": exe_ans}, group="")
            for name, exe_ans in read_gold(path).items()
        ]

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, bool]:
        gold = example.record["exe_ans"]
        return exact_match.score(prediction, gold, marker_required=marker_required).flags()

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return exact_match.rates(scores)

    @property
    def version(self) -> str:
        rule = f"emacc-{self.rule_version}"
        return f"finqa-{VERSION}/{rule}/{self.options.context}/{self.options.target}"

    @property
    def prompt_digest(self) -> str:
        return self.template.digest

    @property
    def max_new_tokens(self) -> int:
        return _MAX_NEW_TOKENS[self.options.target]

    def load(self, split: str) -> list[Example]:
        """Reads and checks all splits at the first call, to report all faults together.

        Raises InputError for a file that is missing or malformed (with the line), for records
        without the context, and for splits that share a page or an id.
        """
        return list(self._splits[split].examples)

    def prompt(self, example: Example) -> Prompt:
        return self.template.fill(render_values(example.record, context=self.options.context))

    def target(self, example: Example) -> str:
        if self.options.target == "program":
            return one_line(str(example.record["program"]))
        return exact_match.answer_text(self.gold(example))

    def gold(self, example: Example) -> float | str:
        exe_ans: float | str = example.record["exe_ans"]
        return exe_ans

    def gold_text(self, example: Example) -> str:
        return exact_match.answer_text(self.gold(example))

    def score(self, example: Example, completion: str) -> dict[str, bool]:
        """The flags of EmAcc; of a program, those of its result on the record's table."""
        gold = self.gold(example)
        if self.options.target == "answer":
            return exact_match.score_completion(completion, gold).flags()
        result = _result_of(completion, example.record["table"])
        return exact_match.score_value(result, gold).flags()

    def meaning(self, example: Example, completion: str) -> str:
        """The word or number that is read, a number by its value; of a program its result."""
        if self.options.target == "answer":
            return exact_match.meaning(exact_match.completion_span(completion))
        result = _result_of(completion, example.record["table"])
        return "" if result is None else exact_match.answer_text(result)

    def reason(self, example: Example, completion: str) -> str:
        gold = self.gold(example)
        if self.options.target == "answer":
            return explanations.of_answer(completion, gold)
        return explanations.of_program(
            exact_match.completion_span(completion), example.record["table"], gold
        )

    def slices(self, example: Example) -> Mapping[str, str | float]:
        """`steps`: the operations of the gold program, if there is one."""
        record = example.record
        steps = record["program"].count("(")
        source = page_slices.evidence_source(record)
        found = page_slices.of_page(self.prompt(example).text, record, source=source)
        return {**found, "steps": float(steps)} if steps else found

    def trivial_baselines(self, examples: Sequence[Example]) -> dict[str, float]:
        return trivial_baselines.trivial_baselines(examples)

    def data_digest(self, split: str) -> str:
        digest = hashlib.sha256()
        for example in self._splits[split].examples:
            digest.update(json.dumps(example.record, sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        """`evidence` is the origin of the facts in the prompts, "none" if they show the page."""
        found = self._splits[split]
        kinds = {str(example.record["ev"]) for example in found.examples}
        evidence = _evidence_fact(kinds) if self.options.context == EVIDENCE else "none"
        return {
            "context": self.options.context,
            "evidence": evidence,
            "examples": len(found.examples),
            "skipped_missing_context": found.skipped,
        }

    @cached_property
    def _splits(self) -> Mapping[str, Split]:
        return load_splits(self.options)


def _result_of(program: str, table: programs.Table) -> float | str | None:
    try:
        return programs.execute(exact_match.completion_span(program), table)
    except programs.ProgramError:
        return None


def _evidence_fact(kinds: set[str]) -> str:
    only = next(iter(kinds)) if len(kinds) == 1 else "mixed"
    return only if only in ("gold", "retrieved", "none") else "mixed"
