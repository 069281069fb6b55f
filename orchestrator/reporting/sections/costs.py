"""The sections on cost: FLOPs, memory times time, speed, and errors of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.analysis.costs import (
    MEASURED,
    TRAIN_FLOPS,
    PredictionError,
    Reached,
    first_to_reach,
    has_device_alone,
    learning_curve,
    prediction_errors,
    speed_ranks,
)
from orchestrator.analysis.pareto import COST, front
from orchestrator.formatting import (
    MISSING,
    counted,
    format_byte_seconds,
    format_bytes,
    format_duration,
    format_flops,
    format_metric,
    title,
)
from orchestrator.reporting.document import Block, Paragraph, Picture, Section, Table
from orchestrator.reporting.sections.headline import primary_text, score_header, score_text
from orchestrator.runs.sweep_metrics import SweepMetrics
from orchestrator.runs.trial_result import TrialResult, ranked
from trainables.spec.metric import MetricSpec

SHOWN = 10  # trials in the table of costs; results.csv has all
LEVELS = 6  # at most, of the primary metric to be reached
UNCOUNTED = (
    "No finished trial counted its FLOPs: they are counted from its prediction, and it had none."
)


def flops(
    results: Sequence[TrialResult], *, metric: MetricSpec, picture: Path | None
) -> list[Section]:
    """The front of the primary `metric` against train FLOPs, with the picture if there is one, and
    the train FLOPs to reach some levels of the metric."""
    what = f"{metric.title} against {title(TRAIN_FLOPS)}"
    heading = f"Pareto front: {what}"
    members = front(results, cost=TRAIN_FLOPS)
    if not members:
        return [Section(heading, [Paragraph(UNCOUNTED)])]
    headers = ["trial", "configuration", title(TRAIN_FLOPS), score_header(metric), "train memory"]
    rows = [
        (
            item.trial_id,
            item.label,
            format_flops(item.metrics[TRAIN_FLOPS]),
            primary_text(item),
            format_bytes(item.metrics.get(COST)),
        )
        for item in members
    ]
    blocks: list[Block] = [Table(headers, rows, words=2)]
    if picture is not None:
        blocks.append(Picture(picture.name, str(picture), f"{what}, rung by rung"))
    return [Section(heading, blocks), _to_reach(results, metric)]


def spent(results: Sequence[TrialResult], *, metrics: SweepMetrics) -> Section:
    """FLOPs, time and memory times time of the best finished trials, and comparable speeds."""
    heading = "What the best trials cost"
    order = ranked(results, metrics.ranking)[:SHOWN]
    if not order:
        return Section(heading, [Paragraph("No trial has finished.")])
    places = speed_ranks(item for item in results if item.is_trial and item.finished)
    headers = ["trial", "configuration", metrics.primary.title, title(TRAIN_FLOPS), "eval FLOPs",
               "device time", "memory x time", "examples/s"]  # fmt: skip
    rows = [(*_spent_row(item), _speed(item, places)) for item in order]
    return Section(heading, [Table(headers, rows, words=2), Paragraph(_how_spent(order, places))])


def prediction_error(results: Sequence[TrialResult]) -> Section:
    """The errors of predicted memory and FLOPs, by method and quantization."""
    heading = "How well it was predicted"
    train, evaluation = (prediction_errors(results, f"predicted_{name}_memory_bytes")
                         for name in ("train", "eval"))  # fmt: skip
    kinds = sorted({*train, *evaluation})
    if not kinds:
        return Section(heading, [Paragraph("No finished trial had a prediction.")])
    of_each = ("median", "95th", "under")
    headers = ["method", "quantization", "trials", *(f"train {name}" for name in of_each),
               *(f"eval {name}" for name in of_each)]  # fmt: skip
    rows = [
        (
            *kind,
            str(max(found.count for found in (train.get(kind), evaluation.get(kind)) if found)),
            *_error_cells(train.get(kind)),
            *_error_cells(evaluation.get(kind)),
        )
        for kind in kinds
    ]
    how = (
        "Predicted against measured peak memory of finished trials: the median and the 95th "
        "percentile of the distance, and the farthest that a prediction was too low."
    )
    blocks: list[Block] = [Table(headers, rows, words=2), Paragraph(how)]
    return Section(heading, [*blocks, *_flops_errors(results)])


def _to_reach(results: Sequence[TrialResult], metric: MetricSpec) -> Section:
    """For some levels of the metric the rung that reached it after the fewest train FLOPs."""
    article = "an" if metric.title[:1].lower() in "aeiou" else "a"
    heading = f"Train FLOPs to reach {article} {metric.title}"
    rungs = [rung for item in results if item.is_trial for rung in learning_curve(item)]
    levels = _levels([rung.value for rung in rungs], metric)
    found = [(level, first_to_reach(results, level)) for level in levels]
    rows = [_reached_row(level, rung, metric) for level, rung in found if rung is not None]
    if not rows:
        nothing = "has any question right" if metric.is_share_of_questions else "is above another"
        return Section(heading, [Paragraph(f"No rung {nothing}.")])
    there = score_header(metric).replace(metric.title, f"{metric.title} there", 1)
    headers = [metric.title, "trial", "configuration", "which", title(TRAIN_FLOPS),
               "of its budget", there]  # fmt: skip
    how = (
        "The first rung of any trial, stopped ones too, that has so much. Inner rungs ask few "
        "questions: the interval says how far luck may reach."
    )
    return Section(heading, [Table(headers, rows, words=4), Paragraph(how)])


def _levels(values: Sequence[float], metric: MetricSpec) -> list[float]:
    """Levels up to the best value, at most LEVELS of them: round ones of a share that is to be
    large, else at equal distances from the worst value."""
    if not values:
        return []
    if _has_round_levels(metric):
        return _round_levels(max(values))
    gains = sorted(map(metric.gain, values))
    worst, best = gains[0], gains[-1]
    steps = range(1, LEVELS + 1) if best > worst else ()
    return [metric.gain(min(best, worst + (best - worst) * step / LEVELS)) for step in steps]


def _has_round_levels(metric: MetricSpec) -> bool:
    return metric.is_percentage and metric.direction == "maximize"


def _round_levels(best: float) -> list[float]:
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        count = int(best / step + 1e-9)
        if count <= LEVELS:
            return [round(step * number, 2) for number in range(1, count + 1)]
    return []


def _reached_row(level: float, rung: Reached, metric: MetricSpec) -> tuple[str, ...]:
    return (
        f"{100 * level:.0f}%" if _has_round_levels(metric) else format_metric(metric, level),
        rung.trial.trial_id,
        rung.trial.label,
        rung.trial.state,
        format_flops(rung.flops),
        f"{100 * rung.fraction:.3g}%",
        score_text(metric, rung.value, rung.questions),
    )


def _spent_row(item: TrialResult) -> tuple[str, ...]:
    return (
        item.trial_id,
        item.label,
        format_metric(item.primary, item.value()),
        format_flops(item.metrics.get(TRAIN_FLOPS)),
        format_flops(item.metrics.get("eval_flops")),
        format_duration(item.metrics.get("device_seconds")),
        format_byte_seconds(item.costs.get("memory_byte_seconds")),
    )


def _speed(item: TrialResult, places: dict[str, int]) -> str:
    if item.trial_id in places:
        return f"{item.metrics['examples_per_second']:.3g} (#{places[item.trial_id]})"
    return "shared" if item.metrics.get("device_shared") else MISSING


def _how_spent(order: Sequence[TrialResult], places: dict[str, int]) -> str:
    text = (
        "Memory x time is the peak of a trial's tensors times the time that it held its device, "
        "loading and pauses counted in."
    )
    alone = sum(map(has_device_alone, order))
    if alone == len(order):
        trials = counted(len(places), "trial, alone", "trials, each alone")
        return f"{text} Speed is ranked among the {trials} on its device."
    return f"{text} Speed is ranked only among trials that are known to have had the device alone."


def _error_cells(error: PredictionError | None) -> tuple[str, str, str]:
    if error is None:
        return MISSING, MISSING, MISSING
    under = _share(error.under) if error.under else "none"
    return _share(error.median), _share(error.high), under


def _flops_errors(results: Sequence[TrialResult]) -> list[Block]:
    """One sentence on the errors of FLOPs over all kinds of trials."""
    found = {
        measured: prediction_errors(results, column).values()
        for column, measured in MEASURED.items()
        if measured.endswith("_flops")
    }
    words = [
        f"{title(name)} by {_share(max(error.high for error in errors))}"
        for name, errors in found.items()
        if errors
    ]
    if not words:
        return []
    text = f"FLOPs done differ from those planned: {', '.join(words)}"
    why = "95th percentile of the worst kind; how long answers get is not known before"
    return [Paragraph(f"{text} ({why}).")]


def _share(value: float) -> str:
    percent = round(100 * value, 2 if abs(value) < 0.1 else 0) + 0.0  # no "-0.00"
    return f"{percent:.2f}%" if abs(percent) < 10 else f"{percent:.0f}%"
