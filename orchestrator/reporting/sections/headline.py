"""The section on the best trial: its scores, its untrained base, the trivial baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.significance import Comparison, compare, split_interval, wilson
from orchestrator.formatting import (
    counted,
    format_difference,
    format_metric,
    format_number,
    format_p_value,
    format_signed,
)
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.predictions import PredictionReader, Predictions
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_result import Split, TrialResult
from trainables.spec.knobs import baseline_knobs
from trainables.spec.metric import EVAL_LOSS, MetricSpec

BY_CONTENT = ("model", "prompt")  # their digests count instead of their names


def headline(
    best: TrialResult,
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    *,
    metrics: SweepMetrics,
    trivial: Mapping[str, float],
) -> Section:
    """`trivial` has the values of the task's trivial baselines on the report split."""
    split: Split = "report" if metrics.per_question.name in best.report_metrics else "selection"
    headers = ["metric", "split", "value", "95% interval", "questions"]
    base = base_of(best, results)
    blocks: list[Block] = [
        Paragraph(f"`{best.trial_id}`: {best.label}", strong=True),
        Table(headers, _scores(best, predictions, metrics=metrics), words=2),
        Paragraph(_against_base(best, base, predictions, split=split, metrics=metrics)),
    ]
    blocks += [Paragraph(text) for text in _against_trivial(best, trivial)]
    if split == "selection":
        text = "It has no score on the report split: the values above chose it, so they flatter it."
        blocks.append(Paragraph(text))
    settings = (f"{name}: {value_text(value)}" for name, value in best.knobs.items())
    blocks.append(Paragraph(f"Its configuration: {', '.join(settings)}."))
    return Section("Best trial", blocks)


def base_of(trial: TrialResult, results: Sequence[TrialResult]) -> TrialResult | None:
    """The finished baseline that is this trial untrained.

    It has the same model, quantization, compute dtype, target, way to answer, data and prompt, by
    content and not by name. Its prompts may be longer: a space that varies their length has one
    baseline, at the longest.
    """
    finished = (item for item in results if item.is_baseline and item.finished)
    return next((item for item in finished if _is_base_of(trial, item)), None)


def _is_base_of(trial: TrialResult, base: TrialResult) -> bool:
    apart = ("method", "sequence_length", *BY_CONTENT)
    knobs = [name for name in (*base.knobs, *baseline_knobs()) if name not in apart]
    return (
        base.model_digest == trial.model_digest
        and base.task_identity == trial.task_identity
        and all(base.knobs.get(name) == trial.knobs.get(name) for name in knobs)
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


def split_interval_text(metric: MetricSpec, predictions: Predictions) -> str:
    """'56.1–66.7', as `interval_text`, of a metric that is no share, from the answers; '' of one
    that is not kept for each question."""
    asked = _among(predictions, metric.among) if metric.among else predictions
    bounds = None if metric.is_share_of_questions else split_interval(asked, metric)
    if bounds is None:
        return ""
    decimals = 1 if metric.is_percentage else 3
    low, high = (f"{metric.scale * bound:.{decimals}f}" for bound in bounds)
    return f"{low} to {high}" if bounds[0] < 0 else f"{low}–{high}"


def value_text(value: Any) -> str:
    """The value of a knob or a fact, as in YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def comparison_text(comparison: Comparison, metric: MetricSpec) -> str:
    """'+12.3 points (8.1 to 16.4, exact McNemar p < 0.0001, 400 questions): better'."""
    low, high = (format_signed(metric, bound) for bound in (comparison.low, comparison.high))
    several = comparison.comparisons
    test = comparison.test if several == 1 else f"{comparison.test}, Holm of {several} comparisons,"
    return (
        f"{format_difference(metric, comparison.difference)} (95% {low} to {high}, "
        f"{test} {format_p_value(comparison.p_value)}, {counted(comparison.count, 'question')}): "
        f"{comparison.verdict}"
    )


def _scores(
    best: TrialResult, predictions: PredictionReader, *, metrics: SweepMetrics
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    splits: tuple[Split, ...] = ("selection", "report")
    for split in splits:
        measured = best.report_metrics if split == "report" else best.metrics
        for metric in dict.fromkeys([metrics.ranking, *metrics.task.headline]):
            if metric.name in measured:
                flags = predictions(best, split).column(metric.among) if metric.among else None
                count = best.count(split) if flags is None else sum(map(_has_flag, flags))
                row = _score(metric, measured[metric.name], split=split, count=count)
                interval = split_interval_text(metric, predictions(best, split))
                rows.append((*row[:3], interval or row[3], row[4]))
    return rows


def _score(metric: MetricSpec, value: float, *, split: Split, count: int) -> tuple[str, ...]:
    text = format_number(value, 4) if metric == EVAL_LOSS else format_metric(metric, value)
    return metric.title, split, text, interval_text(metric, value, count), str(count or "")


def _against_base(
    best: TrialResult,
    base: TrialResult | None,
    predictions: PredictionReader,
    *,
    split: Split,
    metrics: SweepMetrics,
) -> str:
    if base is None:
        return "Its untrained base has not been judged, so there is nothing to compare it with."
    both = predictions(best, split), predictions(base, split)
    name = f"Against its untrained base ({base.label}) on the {split} split"
    return f"{name}: {_compared(*both, metrics=metrics)}."


def _compared(best: Predictions, base: Predictions, *, metrics: SweepMetrics) -> str:
    """Compares over all questions, then over those with each flag that only some of them have."""
    metric = metrics.per_question
    flags = dict.fromkeys(each.among for each in metrics.task.headline if each.among)
    try:
        texts = [comparison_text(compare(best, base, metric=metric), metric)]
        for flag in flags:
            own, others = _among(best, flag), _among(base, flag)
            if 0 < len(own.ids) < len(best.ids):
                found = comparison_text(compare(own, others, metric=metric), metric)
                texts.append(f"{flag.capitalize()} questions only: {found}")
    except ValueError:
        return f"not to be compared, {no_common_values(metric)}"
    return ". ".join(texts)


def _among(predictions: Predictions, flag: str) -> Predictions:
    return predictions.only([_has_flag(value) for value in predictions.column(flag)])


def _has_flag(value: Any) -> bool:
    """Whether a question has a flag; one without a value has it."""
    return value is None or bool(value)


def no_common_values(metric: MetricSpec) -> str:
    """Why two trials can't be compared by the metric."""
    if not metric.is_compared:
        return f"{metric.title} is not kept for each question"
    return "they share no predictions"


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
