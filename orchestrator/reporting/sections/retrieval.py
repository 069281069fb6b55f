"""The section on retrieval: how much of the gold evidence was found, and what each context gave."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.analysis.significance import mean_interval
from orchestrator.formatting import MISSING, format_metric
from orchestrator.reporting.document import Paragraph, Section, Table
from orchestrator.reporting.sections.headline import interval_text, primary_text, score_header
from orchestrator.runs.predictions import PredictionReader, Predictions
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.spec.metric import MetricSpec

HEADING = "Retrieval"
HOW = (
    "Of the questions of the selection split whose gold evidence is known: the mean share of it "
    "that was retrieved, before prompts were cut, and how often that was all."
)
_KNOBS = ("retriever", "scope", "k")


def retrieval(
    results: Sequence[TrialResult], predictions: PredictionReader, *, metrics: SweepMetrics
) -> list[Section]:
    """A row for each context and way of retrieving, with its best trial; no section unless
    something was retrieved."""
    specs = metrics.task.of_retrieval
    finished = [item for item in results if item.finished]
    groups: dict[tuple[str, ...], list[TrialResult]] = {}
    for item in finished:
        ways = (item.context, *(str(item.knobs.get(name, MISSING)) for name in _KNOBS))
        groups.setdefault(ways, []).append(item)
    if not any(spec.name in item.metrics for spec in specs for item in finished):
        return []
    titles = [f"{spec.title} (95%)" for spec in specs]
    headers = ["context", *_KNOBS, *titles, "best trial", score_header(metrics.primary)]
    rows = [
        (
            *ways,
            *(_measured(items[0], predictions(items[0]), spec) for spec in specs),
            *_best(items, metrics),
        )
        for ways, items in sorted(groups.items(), key=lambda group: _order(group[0]))
    ]
    return [Section(HEADING, [Table(headers, rows, words=3), Paragraph(HOW)])]


def _order(ways: Sequence[str]) -> list[tuple[int, str]]:
    """By words, and numbers by their size."""
    return [(int(way) if way.isdecimal() else 0, way) for way in ways]


def _measured(item: TrialResult, predictions: Predictions, spec: MetricSpec) -> str:
    """The value of a split with its interval; that of a mean needs the questions' own values."""
    value = item.metrics.get(spec.name)
    if value is None:
        return MISSING
    values = predictions.measured(spec.per_question_key).column(spec.per_question_key)
    text = interval_text(spec, value, len(values)) if values else ""
    if not spec.is_share_of_questions:
        low, high = mean_interval(values)
        text = f"{100 * low:.1f}–{100 * high:.1f}" if math.isfinite(low) else ""
    return format_metric(spec, value) + (f" ({text})" if text else "")


def _best(items: Sequence[TrialResult], metrics: SweepMetrics) -> tuple[str, str]:
    best = next(iter(ranked(items, metrics.ranking)), None)
    return (best.label, primary_text(best)) if best else (MISSING, "")
