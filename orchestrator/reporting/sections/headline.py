"""The report's first section: the best trial, and whether it is better than doing nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.analysis.significance import Comparison, Outcomes, compare, wilson
from orchestrator.formatting import format_p_value, format_percent, format_points, title
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.predictions import PredictionReader, Predictions
from orchestrator.runs.trial_label import trial_label
from orchestrator.runs.trial_result import Split, TrialResult

BY_CONTENT = ("model", "prompt")  # their digests count instead of their names


def headline(
    best: TrialResult | None,
    results: Sequence[TrialResult],
    predictions: PredictionReader,
    *,
    metric: str,
    guesses: Mapping[str, float],
) -> Section:
    """`guesses`: what answers without a model get right of the report's numeric questions."""
    if best is None:
        return Section("Best trial", [Paragraph("No trial has finished, so there is no best one.")])
    split: Split = "report" if metric in best.report_metrics else "selection"
    blocks: list[Block] = [
        Paragraph(f"`{best.trial_id}`: {best.label}", strong=True),
        Table(
            ["metric", "split", "value", "95% interval", "questions"],
            _scores(best, metric, predictions),
            2,
        ),
        Paragraph(_against_base(best, base_of(best, results), predictions, split, metric)),
    ]
    blocks += [Paragraph(text) for text in _against_guesses(best, guesses)]
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


def score_text(share: float | None, count: int) -> str:
    """'61.5% (56.1–66.7)': the share and its 95% interval."""
    return format_percent(share) + (
        f" ({interval_text(share, count)})" if count and share is not None else ""
    )


def interval_text(share: float, count: int) -> str:
    """'56.1–66.7', in percent, or '' when the number of questions is unknown."""
    low, high = wilson(share, count)
    return f"{100 * low:.1f}–{100 * high:.1f}" if count else ""


def value_text(value: Any) -> str:
    """A knob's or a fact's value as YAML would have it."""
    return value if isinstance(value, str) else json.dumps(value)


def comparison_text(comparison: Comparison) -> str:
    """'+12.3 points (8.1 to 16.4, exact McNemar p < 0.0001, 400 questions): better'."""
    low, high = 100 * comparison.low, 100 * comparison.high
    several = comparison.comparisons
    test = "exact McNemar" if several == 1 else f"exact McNemar, Holm of {several} comparisons,"
    return (
        f"{format_points(comparison.difference)} (95% {low:+.1f} to {high:+.1f}, {test} "
        f"{format_p_value(comparison.p_value)}, {comparison.count} questions): {comparison.verdict}"
    )


def _scores(best: TrialResult, metric: str, predictions: PredictionReader) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    shown = dict.fromkeys([metric, "em_acc", "em_acc_strict", "em_acc_numeric"])
    splits: tuple[Split, ...] = ("selection", "report")
    for split in splits:
        metrics = best.metrics if split == "selection" else best.report_metrics
        for name in [name for name in shown if name in metrics]:
            is_numeric = name == "em_acc_numeric"
            asked = sum(_are_numeric(predictions(best, split))) if is_numeric else best.count(split)
            share = not name.endswith("loss")
            value = format_percent(metrics[name]) if share else f"{metrics[name]:.4f}"
            interval = interval_text(metrics[name], asked) if share else ""
            rows.append((title(name), split, value, interval, str(asked or "")))
    return rows


def _are_numeric(predictions: Predictions) -> list[bool]:
    """Of each question whether its gold is a number rather than yes or no."""
    return [str(gold).lower() not in ("yes", "no") for gold in predictions.column("gold")]


def _against_base(
    best: TrialResult,
    base: TrialResult | None,
    predictions: PredictionReader,
    split: Split,
    metric: str,
) -> str:
    if base is None:
        return "Its untrained base has not been judged, so there is nothing to compare it with."
    both = [predictions(item, split) for item in (best, base)]
    name = f"Against its untrained base ({trial_label(base.knobs)}) on the {split} split"
    try:
        text = f"{name}: {_compared(both, metric)}."
        if all(_are_numeric(both[0])):
            return text
        numeric = _compared([item.only(_are_numeric(item)) for item in both], metric)
    except ValueError:
        return f"{name}: not to be compared, they share no predictions."
    return f"{text} Numeric questions only: {numeric}."


def _compared(both: Sequence[Predictions], metric: str) -> str:
    best, base = (Outcomes.of(item, _judged(metric)) for item in both)
    return comparison_text(compare(best, base))


def _judged(metric: str) -> str:
    """What a question is right by: a loss is not kept per question."""
    return "em_acc" if metric.endswith("loss") else metric


def _against_guesses(best: TrialResult, guesses: Mapping[str, float]) -> list[str]:
    if not guesses:
        return []
    name = max(guesses, key=lambda key: guesses[key])
    best_guess = f"The best guess without a model ({name.replace('_', ' ')}) is right in "
    text = f"{best_guess}{format_percent(guesses[name])} of the report split's numeric questions"
    own = best.report_metrics.get("em_acc_numeric")
    if own is None:
        return [f"{text}."]
    return [
        f"{text}; the best trial in {format_percent(own)}: {format_points(own - guesses[name])}."
    ]
