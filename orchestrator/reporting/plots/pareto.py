"""pareto.png: the primary metric against training peak memory, drawn with matplotlib (Agg).

Colour is the quantization, the marker the model; bars are 95% intervals of shares (Wilson).
Untrained baselines use no training memory: they are hollow, in a strip of their own on the left.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.pareto import (
    COST,
    TRAINS_NOTHING,
    candidates,
    cost_of,
    front,
    trains_nothing,
)
from orchestrator.analysis.significance import wilson
from orchestrator.formatting import counted, title
from orchestrator.reporting.plots.annotations import (
    INK,
    KNOWN,
    Style,
    draw_legend,
    height,
    label_front,
)
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_label import quantization_name
from orchestrator.runs.trial_result import TrialResult
from trainables.spec.metric import MetricSpec
from trainables.storage.run_folder import RunFolder

# The colours of Okabe and Ito, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D1F", "#000000")
MARKERS = "osD^vPX*"
FAINT = "#9a9a9a"


def plot(run: RunFolder, results: Sequence[TrialResult] | None = None) -> Path | None:
    """Writes pareto.png; returns None, and writes nothing, if no trial has both metrics."""
    results = read_trials(run) if results is None else results
    if not candidates(results):
        return None
    run.write_bytes(run.pareto_file, picture(results, name=run.path.resolve().name))
    return run.pareto_file


def picture(results: Sequence[TrialResult], *, name: str) -> bytes:
    """The plot as PNG; `results` must have a candidate for the front."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.0), dpi=160)
    FigureCanvasAgg(figure)
    finished, baselines = candidates(results), _baselines(results)
    unit = 2**30 if max(cost_of(item) for item in finished) >= 2**30 else 2**20
    axes, strip = new_axes(figure, finished[0].primary, strip=bool(baselines))
    style = style_of([*finished, *baselines])
    draw_front(axes, front(results), unit=unit)
    _draw_trials(axes, finished, style=style, unit=unit)
    if strip is not None:
        _draw_baselines(strip, baselines, style=style)
    axes.set_ylim(*value_limits([*finished, *baselines]))
    extend_front(axes, front(results), unit=unit)
    _words(figure, axes, results, name=name, unit=unit)
    draw_legend(axes, [*finished, *baselines], style=style)
    label_front(figure, axes, front(results), finished, unit=unit)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _baselines(results: Sequence[TrialResult]) -> list[TrialResult]:
    finished = (item for item in results if item.is_baseline and item.finished)
    return [item for item in finished if item.value() is not None]


def new_axes(figure: Any, metric: MetricSpec, *, strip: bool) -> tuple[Any, Any]:
    """The axes, with margins for text, and the axes of a strip on their left or None."""
    place = {"left": 0.085, "right": 0.80, "top": 0.86, "bottom": 0.16}
    if not strip:
        axes = figure.add_subplot()
        figure.subplots_adjust(**place)
        both = [axes]
    else:
        grid = figure.add_gridspec(1, 2, width_ratios=(1, 7), wspace=0.03, **place)
        narrow = figure.add_subplot(grid[0])
        axes = figure.add_subplot(grid[1], sharey=narrow)
        axes.tick_params(labelleft=False, left=False)
        both = [narrow, axes]
    for item in both:
        item.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        item.set_axisbelow(True)
        item.spines[["top", "right"]].set_visible(False)
        item.spines[["left", "bottom"]].set_color(FAINT)
        item.tick_params(colors=INK, length=3)
    unit = "percent" if metric.is_percentage else metric.unit
    where = ", ".join(part for part in (unit, "selection split") if part)
    both[0].set_ylabel(f"{metric.title} ({where})", color=INK)
    return axes, both[0] if strip else None


def style_of(results: Sequence[TrialResult]) -> Style:
    """The style of a trial; a known quantization has the same colour in every sweep."""
    others = {quantization_name(item.knobs) for item in results}.difference(KNOWN)
    quantizations = [*KNOWN, *sorted(others)]
    models = sorted({item.model_name for item in results})

    def style(item: TrialResult) -> dict[str, Any]:
        colour = quantizations.index(quantization_name(item.knobs))
        marker = models.index(item.model_name)
        return {
            "color": COLOURS[colour % len(COLOURS)],
            "marker": MARKERS[marker % len(MARKERS)],
            "linestyle": "none",
        }

    return style


def draw_front(
    axes: Any, members: Sequence[TrialResult], *, unit: int = 1, cost: str = COST
) -> None:
    """Draws the front as steps: between two members the cheaper one is the best."""
    costs = [cost_of(item, cost) / unit for item in members]
    axes.step(costs, [height(item) for item in members], where="post", color=INK, linewidth=1.4)
    axes.plot(costs, [height(item) for item in members], "o", color="none", markersize=13,
              markeredgecolor=INK, markeredgewidth=1.1, zorder=4)  # fmt: skip


def _draw_trials(axes: Any, items: Sequence[TrialResult], *, style: Style, unit: int) -> None:
    costs = [cost_of(item) / unit for item in items]
    _draw_intervals(axes, costs, items, style=style)
    for cost, item in zip(costs, items, strict=True):
        axes.plot(cost, height(item), **style(item), markersize=7,
                  markeredgecolor="white", markeredgewidth=0.7, zorder=5)  # fmt: skip
    axes.margins(x=0.09, y=0.08)


def value_limits(items: Sequence[TrialResult]) -> tuple[float, float]:
    """The limits of the axis: all intervals, and zero if it is near."""
    bounds = [bound for item in items for bound in (height(item), *_interval(item))]
    smallest = 1.0 if items[0].primary.is_percentage else abs(max(bounds)) / 100 or 1.0
    room = 0.08 * max(smallest, max(bounds) - min(bounds))
    low = min(bounds) - room
    is_near_zero = min(bounds) >= 0 and low < 0.25 * max(bounds)
    return (-0.4 * room if is_near_zero else low), max(bounds) + room


def extend_front(
    axes: Any, members: Sequence[TrialResult], *, unit: int = 1, cost: str = COST
) -> None:
    """Draws a dotted line from the last member to the right edge."""
    right = axes.get_xlim()[1]
    axes.hlines(height(members[-1]), cost_of(members[-1], cost) / unit, right, color=INK,
                linewidth=1.1, linestyles=(0, (1, 2.5)))  # fmt: skip
    axes.set_xlim(right=right)


def _draw_baselines(axes: Any, items: Sequence[TrialResult], *, style: Style) -> None:
    """Draws baselines side by side, so that equal ones are visible."""
    places = [(number + 1) / (len(items) + 1) for number in range(len(items))]
    _draw_intervals(axes, places, items, style=style)
    for x, item in zip(places, items, strict=True):
        axes.plot(x, height(item), **style(item), markersize=6.5, markerfacecolor="white",
                  markeredgewidth=1.4, zorder=5)  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.set_xlabel("untrained", color=INK, labelpad=8)


def _draw_intervals(
    axes: Any, places: Sequence[float], items: Sequence[TrialResult], *, style: Style
) -> None:
    lows, highs = zip(*map(_interval, items), strict=True)
    colours = [style(item)["color"] for item in items]
    axes.vlines(places, lows, highs, colors=colours, alpha=0.35, linewidth=1.6, zorder=2)


def _interval(item: TrialResult) -> tuple[float, float]:
    """The 95% interval on the axis; the value itself unless it is a share of questions."""
    value = item.value()
    if value is None or not item.primary.is_share_of_questions or not item.count():
        return height(item), height(item)
    low, high = wilson(value, item.count())
    return 100 * low, 100 * high


def _words(figure: Any, axes: Any, results: Sequence[TrialResult], *, name: str, unit: int) -> None:
    axes.set_xlabel(f"{title(COST)} ({'GiB' if unit == 2**30 else 'MiB'}, tensors)", color=INK)
    heading = f"{candidates(results)[0].primary.title} against {title(COST)}"
    figure.text(0.085, 0.94, heading, size=14, weight="bold", color=INK)
    figure.text(0.085, 0.897, f"sweep {name}", size=10, color="#666666")
    figure.text(0.085, 0.03, caption(results), size=8.5, color="#666666")


def caption(results: Sequence[TrialResult]) -> str:
    """The numbers of trials that are drawn and that are not."""
    trials = [item for item in results if item.is_trial]
    drawn, members = candidates(results), front(results)
    counts = sorted({item.count() for item in drawn} - {0})
    ends = "–".join(str(n) for n in counts[:: max(1, len(counts) - 1)])
    asked = f" on {ends} question{'' if counts == [1] else 's'}"
    is_share = any(item.primary.is_share_of_questions for item in drawn)
    bars = f"; bars: 95% intervals{asked if counts else ''}" if is_share else ""
    asked_only = any(map(trains_nothing, drawn))
    of = counted(len(trials), "trial")
    return (
        f"{len(drawn)} finished of {of}, {len(members)} on the front (ringed)"
        f"{bars}.\n"
        f"The other {len(trials) - len(drawn)} (stopped, failed, ...) are not drawn"
        + (
            f"; {counted(len(_baselines(results)), 'untrained baseline')} hollow."
            if _baselines(results)
            else "."
        )
        + (f" {TRAINS_NOTHING}" if asked_only else "")
    )
