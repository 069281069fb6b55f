"""The report's first section: the best trial, and whether it is better than doing nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.significance import Comparison, compare, wilson
from orchestrator.formatting import (
    format_difference,
    format_metric,
    format_number,
    format_p_value,
    format_signed,
)
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.results import Row, read_predictions
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_label import trial_label
from orchestrator.runs.trial_result import Split, TrialResult
from trainables.spec.metric import EVAL_LOSS, MetricSpec

BY_CONTENT = ("model", "prompt")  # their digests count instead of their names


def headline(
    best: TrialResult | None,
    results: Sequence[TrialResult],
    *,
    metrics: SweepMetrics,
    trivial: Mapping[str, float],
) -> Section:
    """`trivial` has the values of the task's trivial baselines on the report split."""
    if best is None:
        return Section("Best trial", [Paragraph("No trial has finished, so there is no best one.")])
    split: Split = "report" if metrics.ranking.name in best.report_metrics else "selection"
    blocks: list[Block] = [
        Paragraph(f"`{best.trial_id}`: {best.label}", strong=True),
        Table(["metric", "split", "value", "95% interval", "questions"], _scores(best, metrics), 2),
        Paragraph(_against_base(best, base_of(best, results), split=split, metrics=metrics)),
    ]
    blocks += [Paragraph(text) for text in _against_trivial(best, trivial)]
    if split == "selection":
        text = "It has no score on the report split: the values above chose it, so they flatter it."
        blocks.append(Paragraph(text))
    settings = (f"{name}: {value_text(value)}" for name, value in best.knobs.items())
    blocks.append(Paragraph(f"Its configuration: {', '.join(settings)}."))
    return Section("Best trial", blocks)


def base_of(trial: TrialResult, results: Sequence[TrialResult]) -> TrialResult | None:
    """The finished baseline that is this trial untrained: the same model, quantization, compute
    dtype, target, data and prompt, the contents compared and not the names. Its prompts may be
    longer: a space that varies the length has one baseline, at its longest."""
    judged = (item for item in results if item.is_baseline and item.finished)
    return next((item for item in judged if _is_base_of(trial, item)), None)


def _is_base_of(trial: TrialResult, base: TrialResult) -> bool:
    apart = ("method", "sequence_length", *BY_CONTENT)
    knobs = [name for name in base.knobs if name not in apart]
    return (
        base.model_digest == trial.model_digest
        and base.task_identity == trial.task_identity
        and all(base.knobs[name] == trial.knobs.get(name) for name in knobs)
    )


def primary_text(item: TrialResult, split: Split = "selection") -> str:
    """The primary metric of a trial on a split, as `score_text`."""
    return score_text(item.primary, item.value(split), item.count(split))


def score_text(metric: MetricSpec, value: float | None, count: int) -> str:
    """'61.5% (56.1–66.7)': the value and, of a share of questions, its 95% interval."""
    interval = "" if value is None else interval_text(metric, value, count)
    return format_metric(metric, value) + (f" ({interval})" if interval else "")


def score_header(metric: MetricSpec) -> str:
    """The header of a column of `score_text`."""
    return f"{metric.title} (95%)" if metric.is_share_of_questions else metric.title


def interval_text(metric: MetricSpec, value: float, count: int) -> str:
    """'56.1–66.7', in percent; '' unless the metric is a share of a known number of questions."""
    if not metric.is_share_of_questions or not count:
        return ""
    low, high = wilson(value, count)
    return f"{100 * low:.1f}–{100 * high:.1f}"


def value_text(value: Any) -> str:
    """A knob's or a fact's value as YAML would have it."""
    return value if isinstance(value, str) else json.dumps(value)


def comparison_text(comparison: Comparison, metric: MetricSpec) -> str:
    """'+12.3 points (8.1 to 16.4, exact McNemar p < 0.0001, 400 questions): better'."""
    low, high = (format_signed(metric, bound) for bound in (comparison.low, comparison.high))
    return (
        f"{format_difference(metric, comparison.difference)} (95% {low} to {high}, "
        f"{comparison.test} {format_p_value(comparison.p_value)}, {comparison.count} questions): "
        f"{comparison.verdict}"
    )


def _scores(best: TrialResult, metrics: SweepMetrics) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    splits: tuple[Split, ...] = ("selection", "report")
    for split in splits:
        measured = best.report_metrics if split == "report" else best.metrics
        for metric in dict.fromkeys([metrics.ranking, *metrics.task.headline]):
            if metric.name in measured:
                rows.append(_score(best, split, metric, measured[metric.name]))
    return rows


def _score(best: TrialResult, split: Split, metric: MetricSpec, value: float) -> tuple[str, ...]:
    count = best.count(split)
    if metric.among:
        count = len(_among(_predictions(best, split), metric.among))
    text = format_number(value, 4) if metric == EVAL_LOSS else format_metric(metric, value)
    return metric.title, split, text, interval_text(metric, value, count), str(count or "")


def _among(rows: Sequence[Row], flag: str) -> list[Row]:
    """The questions that have the flag; one that lacks it counts."""
    return [row for row in rows if row.get(flag, True)]


def _against_base(
    best: TrialResult, base: TrialResult | None, *, split: Split, metrics: SweepMetrics
) -> str:
    if base is None:
        return "Its untrained base has not been judged, so there is nothing to compare it with."
    own, bases = _predictions(best, split), _predictions(base, split)
    name = f"Against its untrained base ({trial_label(base.knobs)}) on the {split} split"
    metric = metrics.judged
    flags = dict.fromkeys(each.among for each in metrics.task.headline if each.among)
    try:
        texts = [f"{name}: {comparison_text(compare(own, bases, metric=metric), metric)}."]
        for flag in (flag for flag in flags if 0 < len(_among(own, flag)) < len(own)):
            found = compare(_among(own, flag), _among(bases, flag), metric=metric)
            texts.append(f"{flag.capitalize()} questions only: {comparison_text(found, metric)}.")
    except ValueError:
        return f"{name}: not to be compared, {no_common_values(metric)}."
    return " ".join(texts)


def no_common_values(metric: MetricSpec) -> str:
    """Why two trials can't be compared by the metric."""
    if not metric.per_question_key:
        return f"{metric.title} is not kept for each question"
    return "they share no predictions"


def _predictions(trial: TrialResult, split: Split) -> list[Row]:
    return read_predictions(trial.folder, split)[0]


def _against_trivial(best: TrialResult, trivial: Mapping[str, float]) -> list[str]:
    if not trivial:
        return []
    metric = best.task_metrics.of_trivial_baselines
    name = max(trivial, key=lambda key: metric.gain(trivial[key]))
    value, own = trivial[name], best.report_metrics.get(metric.name)
    guess = f"The best guess without a model ({name.replace('_', ' ')})"
    if metric.is_share_of_questions and metric.direction == "maximize":
        questions = f"{metric.among} questions".strip()
        text = (
            f"{guess} is right in {format_metric(metric, value)} of the report split's {questions}"
        )
        of_best = f"in {format_metric(metric, own)}"
    else:
        text = f"{guess} has a {metric.title} of {format_metric(metric, value)} on the report split"
        of_best = f"has {format_metric(metric, own)}"
    if own is None:
        return [f"{text}."]
    return [f"{text}; the best trial {of_best}: {format_difference(metric, own - value)}."]
