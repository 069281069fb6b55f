"""The contract of a task: what a trial learns, how it is asked, and how its answers are scored.

A task is a class that satisfies `Task`: a package beside this file, and its row in
`registry.TASKS`, or an installed package with an entry point (see `registry`). Nothing else names
a task or one of its metrics. What the driver has to know of it, it reads from the class, which must
be importable without torch:

- `metrics`: each metric as a `MetricSpec` (name, title, unit, direction, format, the key of a
  question's own value, whether it is a share of questions). The first one ranks trials. Objectives,
  tables, plots, columns, comparisons, MLflow's metrics and `ask` follow from these values.
- `answering`, `prompts`, `targets`, `knobs`, `max_new_tokens`, `canonical_prompt`: how a question
  is asked and answered.
- `source`, `read_gold`, `score_prediction`, `rule_version`: its files, and the command `score`.
- `trivial_baselines`: what is reached without a model.

The rest (`load`, `prompt`, `target`, `score`, `aggregate`, ...) is called where a trial is trained
and evaluated. `aggregate` gives the value of every metric of a split from what `score` gave for
each question; a row of predictions.jsonl holds what `score` gave, under the `per_question_key` of
the metrics. A class that inherits from `Task` need not define what has a body here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol

from trainables.spec.metric import TaskMetrics
from trainables.tasks import slices
from trainables.tasks.source import Source

SPLITS = ("train", "selection", "report")
TOO_LONG = "too_long"  # an option of all tasks, which is not passed to them
NOTHING = "nothing was written"  # the reason why an empty answer is wrong


LINE_BREAK = "\n"


def one_line(text: str) -> str:
    """The text, where it has several lines with a space between its words instead."""
    return text if len(text.splitlines()) < 2 else " ".join(text.split())


@dataclass(frozen=True)
class Cut:
    """A piece of a prompt that may be shortened, and the side ("start" or "end") that goes."""

    piece: int
    side: str


@dataclass(frozen=True)
class Shot:
    """An answered question that is shown before another one."""

    example_id: str
    prompt: Prompt
    target: str


@dataclass(frozen=True)
class Prompt:
    """One question as the model reads it.

    `pieces` concatenate to the user's message, which ends without a newline. `cuts` are the pieces
    that may be shortened, in the order in which they are. `reply` begins the answer: it follows the
    chat template's generation prompt or, without a template, a newline; it ends without a space, a
    target begins without one, and `joint` joins them. Without a reply the answer follows the
    message: after `joint`, or as it is after a chat template's generation prompt. A target that
    begins with white space needs no `joint`. `shots` come before it.
    """

    pieces: tuple[str, ...]
    cuts: tuple[Cut, ...]
    reply: str
    joint: str = " "
    shots: tuple[Shot, ...] = ()

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class Example:
    """One question: a stable id, unique over all splits, and its group, which no splits share.

    `kind`, the sort of question, is for counts only; "" if it is not known.
    """

    id: str
    record: Mapping[str, Any]
    group: str
    kind: str = ""


class Answering(Enum):
    """How a model's answer to a question comes about."""

    GENERATION = "generation"  # the model writes it after the prompt, by its strategy
    LIKELIHOOD = "likelihood"  # the one of the task's choices that is likeliest after the prompt
    LIKELIHOOD_PER_TOKEN = "likelihood_per_token"  # the same, by the mean of its tokens


class Task(Protocol):
    """A kind of question with its data, prompts, targets, metrics and scoring rule."""

    name: ClassVar[str]
    unit: ClassVar[str]  # of which a budget counts so many, as "examples"
    metrics: ClassVar[TaskMetrics]  # unless its options decide: see `metrics_of`
    rule_version: ClassVar[str]  # of the rule that scores answers
    prompts: ClassVar[Mapping[str, str]] = {}  # text by name; a prompt's name is a knob
    targets: ClassVar[tuple[str, ...]] = ("answer",)  # what a model may learn to write; a knob too
    knobs: ClassVar[tuple[str, ...]] = ("prompt", "target")  # rows of KNOBS that are its options
    source: ClassVar[Source | None] = None  # None: it has no files to download
    loads_one_split: ClassVar[bool] = False  # the option `asked` names the only one that is needed

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Task:
        """The task with the options of `data` and its knobs.

        Reads no data. Raises InputError with all that is wrong in the options.
        """
        ...

    @classmethod
    def metrics_of(cls, options: Mapping[str, Any]) -> TaskMetrics:
        """The metrics of the task with these options of `data`, which may be wrong; reads no
        data."""
        del options
        return cls.metrics

    @classmethod
    def canonical_prompt(cls, prompt: str, target: str) -> str:
        """The name under which the prompt is a knob of a trial with this target."""
        del target
        return prompt

    @classmethod
    def read_gold(cls, path: str | Path) -> list[Example]:
        """The questions of a gold file, with what `score_prediction` reads of them.

        Raises InputError with all that is wrong with the file.
        """
        ...

    @classmethod
    def score_prediction(
        cls, example: Example, prediction: str | None, *, marker_required: bool
    ) -> Mapping[str, Any]:
        """As `score`, of a model's whole output from outside a sweep; None is no answer.

        What follows the last "Answer:" counts, or the first line without one; with
        `marker_required` an output without one is wrong.
        """
        ...

    @classmethod
    def aggregate(cls, scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The metrics, and other measures, of the questions of which `score` gave `scores`.

        A metric that has no question to be measured on is absent. Raises ValueError without any
        score.
        """
        ...

    @property
    def used_metrics(self) -> TaskMetrics:
        """The metrics with its options, as `metrics_of`."""
        return self.metrics

    @property
    def answering(self) -> Answering:
        return Answering.GENERATION

    @property
    def stop(self) -> str | None:
        """The text at which an answer ends; None: only the model's end token ends it."""
        return LINE_BREAK

    @property
    def target_end(self) -> str:
        """What follows a target in training, before the end token."""
        return LINE_BREAK

    @property
    def version(self) -> str:
        """Names all that decides targets and scores apart from the data and the prompt."""
        ...

    @property
    def prompt_digest(self) -> str:
        """Changes whenever the wording or layout of prompts does."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """How many tokens an answer may need."""
        ...

    def load(self, split: str) -> list[Example]:
        """The examples of one of SPLITS, in a fixed order. Raises InputError for bad data."""
        ...

    def prompt(self, example: Example) -> Prompt: ...

    def target(self, example: Example) -> str:
        """What the model learns to write after the prompt's reply and its `joint`.

        It does not contain `stop`, at which answers end; see `one_line`.
        """
        ...

    def choices(self, example: Example) -> tuple[str, ...]:
        """The answers among which a likelihood decides, each as `target` would be."""
        del example
        return ()

    def gold(self, example: Example) -> float | str: ...

    def gold_text(self, example: Example) -> str:
        """The gold as an answer would be written."""
        gold = self.gold(example)
        return gold if isinstance(gold, str) else f"{gold:g}"

    def score(self, example: Example, completion: str) -> Mapping[str, Any]:
        """The values of one question: flags, shares, numbers and labels by name."""
        ...

    def meaning(self, example: Example, completion: str) -> str:
        """What the rule reads in a completion, the same text for completions that say the same; ""
        for one in which it finds no answer. Votes are counted by it; it ignores the gold."""
        del example
        return completion.strip()

    def reason(self, example: Example, completion: str) -> str:
        """In a few words, what the rule read in a completion and why `score` is what it is."""
        ...

    def slices(self, example: Example) -> Mapping[str, str | float]:
        """Properties of a question by which errors are counted apart: a word is a slice, of a
        number its quartiles are. What a reader can tell of the record's `question` is left out, as
        each row of predictions has it (`trainables.tasks.slices`)."""
        is_label = bool(self.choices(example))
        prompt, gold = self.prompt(example).text, self.gold_text(example)
        return slices.of_question(prompt, example.record, gold, is_label=is_label)

    def trivial_baselines(self, examples: Sequence[Example]) -> dict[str, float]:
        """What is reached without a model, by the name of the way; `metrics.of_trivial_baselines`
        says in which metric."""
        del examples
        return {}

    def data_digest(self, split: str) -> str:
        """A sha256 of the split's content, whatever file it came from."""
        ...

    def facts(self, split: str) -> dict[str, str | int]:
        """What a result must say of its data: `context`, `evidence`, `examples`."""
        ...
