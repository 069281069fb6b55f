"""The FinQA task: numerical questions about pages of annual reports (Chen et al., EMNLP 2021).

The data are FinQA's files, official or flat, or generated records of the same form.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from trainables.tasks import exact_match
from trainables.tasks.finqa import explanations, programs
from trainables.tasks.finqa.options import Options, parse_options
from trainables.tasks.finqa.splits import Split, load_splits
from trainables.tasks.prompts.page_layout import render_values
from trainables.tasks.prompts.templates import EVIDENCE, Template, load_template_for
from trainables.tasks.task import Example, Prompt

VERSION = "1"

_DEFAULT_PROMPTS = {"answer": "default", "program": "program"}


@dataclass(frozen=True)
class FinQA:
    """FinQA with its options; see trainables.tasks.task.Task for what each method promises."""

    name: ClassVar[str] = "finqa"
    unit: ClassVar[str] = "examples"

    options: Options
    template: Template

    @classmethod
    def from_options(cls, given: Mapping[str, Any]) -> FinQA:
        """Raises InputError with all that is wrong in the options and in the template."""
        options = parse_options(given)
        name = options.prompt or _DEFAULT_PROMPTS[options.target]
        return cls(options, load_template_for(name, context=options.context))

    @property
    def version(self) -> str:
        rule = f"emacc-{exact_match.RULE_VERSION}"
        return f"finqa-{VERSION}/{rule}/{self.options.context}/{self.options.target}"

    @property
    def prompt_digest(self) -> str:
        return self.template.digest

    def load(self, split: str) -> list[Example]:
        """Reads and checks all splits once, so that what is wrong in any of them is told at once.

        Raises InputError for a file that is missing or malformed (with the line), for records that
        lack the context, and for splits that share a page or an id.
        """
        return list(self._splits[split].examples)

    def prompt(self, example: Example) -> Prompt:
        return self.template.fill(render_values(example.record, context=self.options.context))

    def target(self, example: Example) -> str:
        if self.options.target == "program":
            return str(example.record["program"])
        return exact_match.answer_text(self.gold(example))

    def gold(self, example: Example) -> float | str:
        exe_ans: float | str = example.record["exe_ans"]
        return exe_ans

    def score(self, example: Example, completion: str) -> dict[str, bool]:
        """EmAcc's flags; a program is executed on the record's table, and its result is scored."""
        gold = self.gold(example)
        if self.options.target == "answer":
            return exact_match.score_completion(completion, gold).flags()
        result = _result_of(completion, example.record["table"])
        return exact_match.score_value(result, gold).flags()

    def reason(self, example: Example, completion: str) -> str:
        gold = self.gold(example)
        if self.options.target == "answer":
            return explanations.of_answer(completion, gold)
        return explanations.of_program(
            exact_match.completion_span(completion), example.record["table"], gold
        )

    def metrics(self, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return exact_match.rates(scores)

    def data_digest(self, split: str) -> str:
        digest = hashlib.sha256()
        for example in self._splits[split].examples:
            digest.update(json.dumps(example.record, sort_keys=True).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        """`evidence` tells whose facts the prompts show; it is "none" where they show the page."""
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
