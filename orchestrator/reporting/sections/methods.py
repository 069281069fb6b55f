"""The section on methods: the best trial of each, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from orchestrator.analysis.costs import has_device_alone
from orchestrator.analysis.pareto import COST
from orchestrator.analysis.significance import compare
from orchestrator.formatting import MISSING, format_bytes, format_duration, format_number
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.reporting.sections.headline import (
    comparison_text,
    no_common_values,
    primary_text,
    score_header,
)
from orchestrator.runs.predictions import PredictionReader
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_label import method_name
from orchestrator.runs.trial_result import Split, TrialResult, ranked

HEADING = "Methods"
HOW = (
    "Time is training, judging and saving; device time is that with loading, for each worker. "
    "Memory is what one worker's tensors took at most in training. Saved: the adapter or the model "
    "that the trial ends with."
)
SHARED = (
    "Some of these trials shared their device with others, so that their times don't compare. For "
    "that: `resources: {placement: exclusive}`."
)
CHOSEN = "The best of each was chosen on the selection split, so its {} there flatters it."


def methods(
    results: Sequence[TrialResult], predictions: PredictionReader, *, metrics: SweepMetrics
) -> list[Section]:
    """The best trial of each model and method (with its workers and ZeRO stage), and paired
    comparisons; no section if all trials have one method."""
    groups = _groups(results)
    if len({method for _, method in groups}) < 2:
        return []
    ranking = metrics.ranking
    best = {key: next(iter(ranked(items, ranking)), None) for key, items in groups.items()}
    headers = ["model", "method", "finished", "best", "configuration",
               score_header(metrics.primary), "eval loss", "time", "device time", "memory",
               "trained", "saved"]  # fmt: skip
    rows = [_row(key, groups[key], best[key]) for key in groups]
    found = [item for item in best.values() if item is not None]
    blocks: list[Block] = [Table(headers, rows, words=5), Paragraph(HOW)]
    if not all(map(has_device_alone, found)):
        blocks.append(Paragraph(SHARED))
    return [Section(HEADING, [*blocks, *_comparisons(best, predictions, metrics=metrics)])]


def _groups(results: Sequence[TrialResult]) -> dict[tuple[str, str], list[TrialResult]]:
    """The trials by model and method."""
    groups: dict[tuple[str, str], list[TrialResult]] = {}
    for item in results:
        if item.is_trial:
            groups.setdefault((item.model_name, method_name(item.knobs)), []).append(item)
    return dict(sorted(groups.items()))


def _row(
    key: tuple[str, str], items: Sequence[TrialResult], best: TrialResult | None
) -> tuple[str, ...]:
    finished = f"{sum(item.finished for item in items)} of {len(items)}"
    if best is None:
        return (*key, finished, "none has finished", "", *[MISSING] * 7)
    trained = best.facts.get("trainable_parameters")
    return (
        *key,
        finished,
        best.trial_id,
        best.label.removeprefix(f"{key[0]} "),
        primary_text(best),
        format_number(best.metrics.get("eval_loss")),
        format_duration(best.seconds.get("total")),
        format_duration(best.metrics.get("device_seconds")),
        format_bytes(best.metrics.get(COST)),
        f"{trained:,}" if isinstance(trained, int) else MISSING,
        format_bytes(best.facts.get("checkpoint_bytes")),
    )


def _comparisons(
    best: Mapping[tuple[str, str], TrialResult | None],
    predictions: PredictionReader,
    *,
    metrics: SweepMetrics,
) -> list[Paragraph]:
    """The best trial of each model against the best one of each other method."""
    texts: list[str] = []
    for model, items in groupby(best.items(), key=lambda item: item[0][0]):
        found = {trial.trial_id: method for (_, method), trial in items if trial is not None}
        order = ranked(
            [trial for trial in best.values() if trial and trial.trial_id in found],
            metrics.ranking,
        )
        texts += [
            f"{model}, {found[order[0].trial_id]} against {found[other.trial_id]} "
            f"{_against(order[0], other, predictions, metrics)}."
            for other in order[1:]
        ]
    chosen = CHOSEN.format(metrics.primary.title)
    return [Paragraph(text) for text in [*texts, chosen]] if texts else []


def _against(
    one: TrialResult, other: TrialResult, predictions: PredictionReader, metrics: SweepMetrics
) -> str:
    """Compares two trials, on the report split if both were scored on it."""
    both = one.report_metrics and other.report_metrics
    split: Split = "report" if both else "selection"
    own, others = predictions(one, split), predictions(other, split)
    try:
        found = compare(own, others, metric=metrics.per_question)
    except ValueError:
        return f"is not to be compared, {no_common_values(metrics.per_question)}"
    return f"on the {split} split: {comparison_text(found, metrics.per_question)}"
