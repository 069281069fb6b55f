"""MetricSpec: a metric as its task declares it, by which the driver ranks, compares and prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class MetricSpec:
    """One number that is measured on the questions of a split.

    `name` is its key in a trial's metrics, its column in results.csv and its name in MLflow;
    `title` stands for it in prose. `format` is Python's format of a value (".1%" is percent) and
    `unit` follows it; values of the units "bytes" and "FLOP" are printed as people say them.

    `per_question_key` is the key of a question's own value in a row of predictions.jsonl, "" if
    there is none. `is_share_of_questions`: that value is true or false (right or wrong) and the
    metric is the share of questions that have it true; only such a metric has a binomial interval,
    is compared by McNemar's test, and has questions that flip. `among` is the key of a flag in
    those rows, an adjective as "numeric": the metric is of the questions that have the flag, "" of
    all. `statistic`: the metric is of a split as a whole, as F1 is, and has no value per question;
    it is the name by which `trainables.metrics.registry.find_statistic` finds it, for a bootstrap
    over questions. `in_headline`: the report's first table and MLflow's best_* metrics hold it.
    """

    name: str
    title: str
    unit: str = ""
    direction: Direction = "maximize"
    format: str = ".3f"
    per_question_key: str = ""
    is_share_of_questions: bool = False
    among: str = ""
    statistic: str = ""
    in_headline: bool = True

    @property
    def is_compared(self) -> bool:
        """Whether two trials can be compared in it, from their answers to the same questions."""
        return bool(self.per_question_key or self.statistic)

    @property
    def is_percentage(self) -> bool:
        """Whether values are shares that are printed in percent."""
        return self.format.endswith("%")

    @property
    def tells_right_from_wrong(self) -> bool:
        """Whether a question's own value is true for a right answer, whatever the question."""
        return self.is_share_of_questions and self.direction == "maximize" and not self.among

    @property
    def scale(self) -> int:
        """What a value is multiplied by for an axis or a column of numbers."""
        return 100 if self.is_percentage else 1

    def gain(self, value: float) -> float:
        """The value, with its sign turned if less is better: of two gains the greater is better."""
        return value if self.direction == "maximize" else -value


@dataclass(frozen=True)
class TaskMetrics:
    """The metrics of a task, in the order of their columns; the first one ranks its trials.

    `trivial` names the metric of its trivial baselines, "" for the first one. `other_columns` are
    columns of results.csv that stand behind those of the metrics. `of_labels`: a question's row of
    predictions.jsonl has the gold label and the answered one (see `trainables.metrics.metric`).
    `of_retrieval` are measured beside `specs` where prompts show what was retrieved.
    """

    specs: tuple[MetricSpec, ...]
    trivial: str = ""
    other_columns: tuple[str, ...] = ()
    of_labels: bool = False
    of_retrieval: tuple[MetricSpec, ...] = ()

    @property
    def primary(self) -> MetricSpec:
        return self.specs[0]

    @property
    def count_key(self) -> str:
        """The key, in a trial's metrics, of how many questions were asked."""
        return f"{self.primary.name}_questions"

    @property
    def verdict(self) -> MetricSpec | None:
        """The metric by which an answer is right or wrong, or None if the task has none."""
        return next((spec for spec in self.specs if spec.tells_right_from_wrong), None)

    @property
    def headline(self) -> tuple[MetricSpec, ...]:
        return tuple(spec for spec in self.specs if spec.in_headline)

    @property
    def of_trivial_baselines(self) -> MetricSpec:
        return self.find(self.trivial) or self.primary

    def find(self, name: str) -> MetricSpec | None:
        """The metric of this name, of the task or of every task; None if there is none."""
        known = {spec.name: spec for spec in (*COMMON_METRICS, *self.of_retrieval, *self.specs)}
        return known.get(name)


EVAL_LOSS = MetricSpec("eval_loss", "eval loss", direction="minimize")
TRAIN_PEAK_MEMORY = MetricSpec(
    "train_peak_memory_bytes", "training peak memory", "bytes", "minimize", ",.0f"
)
EVAL_PEAK_MEMORY = MetricSpec(
    "eval_peak_memory_bytes", "evaluation peak memory", "bytes", "minimize", ",.0f"
)
COMMON_METRICS = (  # measured of every trial, whatever its task
    EVAL_LOSS,
    MetricSpec("train_loss", "train loss", direction="minimize"),
    TRAIN_PEAK_MEMORY,
    EVAL_PEAK_MEMORY,
    MetricSpec("train_flops", "train FLOPs", "FLOP", "minimize", ".3g"),
    MetricSpec("eval_flops", "evaluation FLOPs", "FLOP", "minimize", ".3g"),
)
