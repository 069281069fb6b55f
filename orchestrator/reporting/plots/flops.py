"""flops.png: each trial's primary metric against its train FLOPs, rung by rung (matplotlib).

Colour is the quantization, the marker the model, as in pareto.png. Trials that did not finish are
faint and end with a cross; the front is of the finished ones.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.costs import TRAIN_FLOPS, learning_curve
from orchestrator.analysis.pareto import candidates, front, with_cost
from orchestrator.formatting import counted, title
from orchestrator.reporting.plots.annotations import (
    INK,
    Style,
    draw_legend,
    height,
    label_front,
)
from orchestrator.reporting.plots.pareto import (
    draw_front,
    extend_front,
    new_axes,
    style_of,
    value_limits,
)
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_result import TrialResult
from trainables.storage.run_folder import RunFolder

GREY = "#666666"


def plot_flops(run: RunFolder, results: Sequence[TrialResult] | None = None) -> Path | None:
    """Writes flops.png; returns None, and writes nothing, if no finished trial has both the primary
    metric and train FLOPs."""
    results = read_trials(run) if results is None else results
    results = with_cost(results, cost=TRAIN_FLOPS)
    if not candidates(results, cost=TRAIN_FLOPS):
        return None
    run.write_bytes(run.flops_file, _picture(results, name=run.path.resolve().name))
    return run.flops_file


def _picture(results: Sequence[TrialResult], *, name: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), dpi=160)
    FigureCanvasAgg(figure)
    finished = candidates(results, cost=TRAIN_FLOPS)
    axes, _ = new_axes(figure, finished[0].primary, strip=False)
    axes.set_xscale("log")
    drawn = [item for item in results if item.is_trial and learning_curve(item)]
    seen = {item.trial_id for item in drawn}
    drawn += [item for item in finished if item.trial_id not in seen]
    style, members = style_of(drawn), front(results, cost=TRAIN_FLOPS)
    for item in drawn:
        _draw_curve(axes, item, style=style)
    draw_front(axes, members, cost=TRAIN_FLOPS)
    axes.margins(x=0.09)
    axes.set_ylim(*value_limits([item for item in drawn if item.value() is not None]))
    extend_front(axes, members, cost=TRAIN_FLOPS)
    _words(figure, axes, results, name=name, title_of_metric=finished[0].primary.title)
    draw_legend(axes, drawn, style=style)
    label_front(figure, axes, members, finished, cost=TRAIN_FLOPS)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_curve(axes: Any, item: TrialResult, *, style: Style) -> None:
    """Draws a trial's rungs and its end: a marker if it finished, else a cross."""
    rungs = learning_curve(item)
    scale = item.primary.scale
    points = [(rung.flops, scale * rung.value) for rung in rungs if rung.flops > 0]
    if item.finished and TRAIN_FLOPS in item.metrics and item.value() is not None:
        end = (item.metrics[TRAIN_FLOPS], height(item))
        points = [*points[: -1 if points and points[-1][0] == end[0] else None], end]
    if not points:
        return
    look = style(item)
    strength = 0.75 if item.finished else 0.3
    axes.plot(*zip(*points, strict=True), color=look["color"], alpha=strength, linewidth=1.1,
              zorder=2)  # fmt: skip
    if item.finished:
        axes.plot(*points[-1], **look, markersize=7, markeredgecolor="white",
                  markeredgewidth=0.7, zorder=5)  # fmt: skip
    else:
        axes.plot(*points[-1], "x", color=look["color"], alpha=0.5, markersize=5, zorder=3)


def _words(
    figure: Any, axes: Any, results: Sequence[TrialResult], *, name: str, title_of_metric: str
) -> None:
    axes.set_xlabel(f"{title(TRAIN_FLOPS)} until then (logarithmic)", color=INK)
    heading = f"{title_of_metric} against {title(TRAIN_FLOPS)}, rung by rung"
    figure.text(0.085, 0.94, heading, size=14, weight="bold", color=INK)
    figure.text(0.085, 0.897, f"sweep {name}", size=10, color=GREY)
    figure.text(0.085, 0.03, caption(results), size=8.5, color=GREY)


def caption(results: Sequence[TrialResult]) -> str:
    """The numbers of trials that are drawn and that are not."""
    trials = [item for item in results if item.is_trial]
    finished = candidates(results, cost=TRAIN_FLOPS)
    unmarked = {item.trial_id for item in trials} - {item.trial_id for item in finished}
    others = sum(bool(learning_curve(item)) for item in trials if item.trial_id in unmarked)
    missing = len(trials) - len(finished) - others
    left = f" {missing} without a rung that has both numbers." if missing else ""
    return (
        f"{len(finished)} finished of {counted(len(trials), 'trial')} (marked), "
        f"{len(front(results, cost=TRAIN_FLOPS))} on the front (ringed); "
        f"{others} more faint, to their last rung (x).{left}\n"
        "Rungs before the last ask fewer questions; the last asks the whole selection split."
    )
