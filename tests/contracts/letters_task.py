"""A task that is no part of the project, with two metrics of its own: letters of words are counted.

`LettersByError` is the same, ranked by the metric that is no share and is to be minimized.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trainables.errors import InputError, did_you_mean
from trainables.spec.metric import MetricSpec, TaskMetrics
from trainables.tasks.records import read_lines
from trainables.tasks.task import NOTHING, Example, Prompt, Task

WITHIN_ONE = MetricSpec(
    "within_one",
    "within one letter",
    format=".0%",
    per_question_key="is_near",
    is_share_of_questions=True,
)
LETTERS_OFF = MetricSpec(
    "letters_off", "distance", "letters", "minimize", ".2f", per_question_key="distance"
)
UNREAD = 9.0  # letters off, where no number can be read
_COUNTS = {"train": 24, "selection": 8, "report": 6}
_OPTIONS = ("prompt", "target")


@dataclass(frozen=True)
class Letters(Task):
    """How often the letter a is in a word of eight letters."""

    name: ClassVar[str] = "letters"
    unit: ClassVar[str] = "examples"
    metrics: ClassVar[TaskMetrics] = TaskMetrics((WITHIN_ONE, LETTERS_OFF))
    rule_version: ClassVar[str] = "3"

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Task:
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise InputError(
                f"data.{unknown[0]}: unknown option.{did_you_mean(unknown[0], _OPTIONS)}"
            )
        return cls()

    @classmethod
    def read_gold(cls, path: str | Path) -> list[Example]:
        return [_example(value["id"], value["word"]) for _, value in read_lines(path)]

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> dict[str, float]:
        _, marker, answer = (prediction or "").rpartition("Answer:")
        return cls._score(example, answer if marker or not marker_required else "")

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
        if not scores:
            raise ValueError("no questions were scored")
        count = len(scores)
        return {
            "within_one": sum(score["is_near"] for score in scores) / count,
            "letters_off": sum(score["distance"] for score in scores) / count,
            "unread_rate": sum(score["distance"] == UNREAD for score in scores) / count,
        }

    @property
    def version(self) -> str:
        return f"{self.name}-1/rule-{self.rule_version}"

    @property
    def prompt_digest(self) -> str:
        return hashlib.sha256(b"how often is a in this word?").hexdigest()

    @property
    def max_new_tokens(self) -> int:
        return 7

    def load(self, split: str) -> list[Example]:
        drawn = random.Random(split)
        words = ["".join(drawn.choices("aabno", k=8)) for _ in range(_COUNTS[split])]
        return [_example(f"{split}-{place}", word) for place, word in enumerate(words)]

    def prompt(self, example: Example) -> Prompt:
        return Prompt((str(example.record["question"]),), cuts=(), reply="Answer:")

    def target(self, example: Example) -> str:
        return self.gold_text(example)

    def gold(self, example: Example) -> float:
        return float(str(example.record["word"]).count("a"))

    def score(self, example: Example, completion: str) -> dict[str, float]:
        return self._score(example, completion)

    def reason(self, example: Example, completion: str) -> str:
        if not completion.strip():
            return NOTHING
        return f"{self._score(example, completion)['distance']:g} letters off"

    def trivial_baselines(self, examples: Sequence[Example]) -> dict[str, float]:
        most_common, _ = Counter(map(self.gold, examples)).most_common(1)[0]
        scores = [self._score(example, f"{most_common:g}") for example in examples]
        return {"most_common_count": self.aggregate(scores)[self.metrics.primary.name]}

    def data_digest(self, split: str) -> str:
        words = [example.record["word"] for example in self.load(split)]
        return hashlib.sha256(repr([split, words]).encode()).hexdigest()

    def facts(self, split: str) -> dict[str, str | int]:
        return {"context": "full", "evidence": "none", "examples": _COUNTS[split]}

    @classmethod
    def _score(cls, example: Example, answer: str) -> dict[str, float]:
        number = re.search(r"\d+", answer)
        gold = str(example.record["word"]).count("a")
        distance = min(UNREAD, abs(int(number.group()[:9]) - gold)) if number else UNREAD
        return {"is_near": distance <= 1, "distance": float(distance)}


@dataclass(frozen=True)
class LettersByError(Letters):
    """The same, with another name for what a model learns to write."""

    name: ClassVar[str] = "letters_by_error"
    targets: ClassVar[tuple[str, ...]] = ("count",)
    metrics: ClassVar[TaskMetrics] = TaskMetrics((LETTERS_OFF, WITHIN_ONE))


def _example(name: str, word: str) -> Example:
    question = f"how often is a in this word: {word}?"
    return Example(name, {"word": word, "question": question}, group=name, kind=f"{word[0]}...")
