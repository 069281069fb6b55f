"""The report's tables: best trials, Pareto front, cells, baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.analysis.pareto import COST, TRAINS_NOTHING, cost_of, front, trains_nothing
from orchestrator.formatting import (
    format_bytes,
    format_duration,
    format_metric,
    format_number,
    title,
)
from orchestrator.reporting.document import Block, Paragraph, Picture, Section, Table
from orchestrator.reporting.sections.headline import base_of, primary_text, score_header
from orchestrator.runs.progress import counts_text
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.spec.metric import EVAL_LOSS, MetricSpec

SHOWN = 10  # best trials in the table; results.csv has all
CENSORED = "censored: no finished trial"


def best_trials(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> Section:
    """The best finished trials by the objective; ties go to the lower eval loss."""
    order = ranked(results, metrics.ranking)
    if not order:
        return Section("Best trials", [Paragraph("No trial has finished.")])
    headers = ["trial", "configuration", *_score_headers(metrics.primary), "eval loss",
               "train memory", "eval memory", "time"]  # fmt: skip
    rows = [_trial_row(item) for item in order[:SHOWN]]
    blocks: list[Block] = [Table(headers, rows, words=2)]
    if len(order) > SHOWN:
        blocks.append(Paragraph(f"{len(order) - SHOWN} more are in results.csv."))
    return Section("Best trials", blocks)


def pareto_front(
    results: Sequence[TrialResult], *, metric: MetricSpec, picture: Path | None
) -> Section:
    """The front of the primary `metric` against training peak memory, with the picture if there is
    one."""
    members = front(results)
    what = f"{metric.title} against {title(COST)}"
    heading = f"Pareto front: {what}"
    if not members:
        text = f"No finished trial has both {metric.title} and {title(COST)}."
        return Section(heading, [Paragraph(text)])
    rows = [
        (item.trial_id, item.label, format_bytes(cost_of(item)), *_scores(item)) for item in members
    ]
    headers = ["trial", "configuration", "train memory", *_score_headers(metric)]
    blocks: list[Block] = [Table(headers, rows, words=2)]
    if any(map(trains_nothing, members)):
        blocks.append(Paragraph(TRAINS_NOTHING))
    if picture is not None:
        blocks.append(Picture(picture.name, str(picture), what))
    return Section(heading, blocks)


def cells(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> Section:
    """The best finished trial of each model x quantization."""
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for item in results:
        key = (item.model_name, quantization_name(item.knobs))
        groups.setdefault(key, []).append(item)
    headers = ["model", "quantization", "trials", "best finished", score_header(metrics.primary),
               "eval loss", "train memory", "untrained"]  # fmt: skip
    rows = [(*key, *_cell(groups[key], metrics.ranking)) for key in sorted(groups)]
    if not rows:
        return Section("Model x quantization", [Paragraph("No trial has been planned yet.")])
    return Section("Model x quantization", [Table(headers, rows, words=4)])


def baselines(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> Section:
    """The untrained bases, with the state of those that did not finish."""
    items = [item for item in results if item.is_baseline]
    if not items:
        return Section("Untrained baselines", [Paragraph("None has been judged.")])
    partial = [metric for metric in metrics.task.headline if metric.among]
    of_some = [f"report {metric.title}" for metric in partial]
    headers = ["trial", "base", *_score_headers(metrics.primary), *of_some, "eval loss",
               "eval memory"]  # fmt: skip
    rows = [
        (
            item.trial_id,
            item.label + ("" if item.finished else f" ({item.state})"),
            *_scores(item),
            *(format_metric(metric, item.report_metrics.get(metric.name)) for metric in partial),
            format_number(item.metrics.get("eval_loss")),
            format_bytes(item.metrics.get("eval_peak_memory_bytes")),
        )
        for item in items
    ]
    return Section("Untrained baselines", [Table(headers, rows, words=2)])


def _trial_row(item: TrialResult) -> list[str]:
    return [
        item.trial_id,
        item.label,
        *_scores(item),
        format_number(item.metrics.get("eval_loss")),
        format_bytes(item.metrics.get(COST)),
        format_bytes(item.metrics.get("eval_peak_memory_bytes")),
        format_duration(item.seconds.get("total")),
    ]


def _score_headers(metric: MetricSpec) -> tuple[str, str]:
    return score_header(metric), f"report {score_header(metric)}"


def _scores(item: TrialResult) -> tuple[str, str]:
    return primary_text(item), primary_text(item, "report")


def _cell(items: Sequence[TrialResult], metric: MetricSpec) -> tuple[str, ...]:
    trials = [item for item in items if item.is_trial]
    order = ranked(trials, metric)
    base = base_of(order[0] if order else items[0], items)
    untrained = format_metric(items[0].primary, base.value() if base else None)
    if not order:
        return counts_text(trials), CENSORED, "", "", "", untrained
    best = order[0]
    return (
        counts_text(trials),
        best.trial_id,
        _scores(best)[0],
        format_number(best.metrics.get("eval_loss")),
        format_bytes(best.metrics.get(COST)),
        untrained,
    )


def loss_order(results: Sequence[TrialResult]) -> Table:
    """The finished trials by eval loss, with the difference from the lowest."""
    order = ranked(results, EVAL_LOSS)
    lowest = order[0].metrics["eval_loss"] if order else 0.0
    rows = [
        (
            item.trial_id,
            item.label,
            format_number(item.metrics["eval_loss"], 4),
            f"{item.metrics['eval_loss'] - lowest:+.4f}",
        )
        for item in order
    ]
    return Table(["trial", "configuration", EVAL_LOSS.title, "above the lowest"], rows, words=2)
