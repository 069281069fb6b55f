"""flips.png: lost and gained questions by slice, a panel for each property (matplotlib).

Bars are shares of a slice's questions, lost to the left and gained to the right; points are the
difference with its 95% interval, filled where it is significant (Holm over all slices).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from orchestrator.analysis.flip_study import LevelStudy, SliceCount, Study
from orchestrator.reporting.plots.annotations import INK
from orchestrator.reporting.plots.pareto import COLOURS, FAINT

COLUMNS = 3
LEVELS = 3  # of the factor, at most: those with the most significant slices
_LOST, _GAINED = COLOURS[4], COLOURS[0]
_ROW = 0.26  # inches


def flips_picture(found: Study, *, name: str) -> bytes | None:
    """The plot as PNG; None if no property has slices."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = _shown(found)
    if not shown:
        return None
    bands = [_panels(level) for level in shown]
    rows = [
        band[start : start + COLUMNS] for band in bands for start in range(0, len(band), COLUMNS)
    ]
    heights = [max(len(panel) for panel in row) * _ROW + 0.75 for row in rows]
    figure = Figure(figsize=(12.0, sum(heights) + 1.3), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(rows), COLUMNS, height_ratios=heights)
    limit = _limit([each for band in bands for panel in band for each in panel])
    levels = [
        level
        for level, band in zip(shown, bands, strict=True)
        for _ in range(0, len(band), COLUMNS)
    ]
    for at, (row, level) in enumerate(zip(rows, levels, strict=True)):
        for column, panel in enumerate(row):
            axes = figure.add_subplot(grid[at, column])
            _draw(axes, panel, limit=limit)
            axes.set_title(f"{level.level}: {panel[0].name.replace('_', ' ')}",
                           size=10, color=INK, loc="left", weight="bold")  # fmt: skip
    _words(figure, found, shown, name=name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _shown(found: Study) -> list[LevelStudy]:
    order = dict.fromkeys(level.level for level, _ in found.most_different)
    chosen = list(order)[:LEVELS]
    return [level for level in found.levels if level.level in chosen and level.slices]


def _panels(level: LevelStudy) -> list[list[SliceCount]]:
    panels: dict[str, list[SliceCount]] = {}
    for each in level.slices:
        panels.setdefault(each.name, []).append(each)
    return list(panels.values())


def _limit(slices: Sequence[SliceCount]) -> float:
    """Half the width of the axis in percent: all bars and intervals."""
    shares = [100 * max(each.lost, each.gained) / each.asked for each in slices]
    ends = [100 * abs(end) for each in slices for end in each.interval]
    widest: float = max(*shares, *ends, 5.0)
    return min(100.0, 5.0 * math.ceil(widest / 5.0))


def _draw(axes: Any, panel: Sequence[SliceCount], *, limit: float) -> None:
    places = range(len(panel))
    lost = [-100 * each.lost / each.asked for each in panel]
    gained = [100 * each.gained / each.asked for each in panel]
    axes.barh(places, lost, color=_LOST, alpha=0.45, height=0.7)
    axes.barh(places, gained, color=_GAINED, alpha=0.45, height=0.7)
    for place, each in zip(places, panel, strict=True):
        low, high = each.interval
        axes.plot([100 * low, 100 * high], [place, place], color=INK, linewidth=1.3)
        face = INK if each.is_significant else "white"
        axes.plot(100 * each.difference, place, "o", color=INK, markerfacecolor=face, markersize=5)
    axes.axvline(0, color=FAINT, linewidth=0.9)
    labels = [f"{_short(each.level)} ({each.asked})" for each in panel]
    axes.set_yticks(places, labels=labels)
    axes.set_ylim(len(panel) - 0.4, -0.6)
    axes.set_xlim(-limit, limit)
    axes.tick_params(colors=INK, length=2, labelsize=8.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _short(level: str) -> str:
    return level if len(level) <= 28 else f"{level[:27]}…"


def _words(figure: Any, found: Study, shown: Sequence[LevelStudy], *, name: str) -> None:
    left_out = len(found.levels) - len(shown)
    more = f"; {left_out} other levels are not drawn" if left_out else ""
    figure.suptitle(
        f"Right answers lost and gained by {found.factor}, against "
        f"{found.levels[0].reference_level}: sweep {name}",
        size=13, weight="bold", color=INK, x=0.01, ha="left",
    )  # fmt: skip
    figure.supxlabel(
        "percent of the slice's questions: lost (left), gained (right); point: difference with its "
        f"95% interval, filled: significant over all slices (Holm){more}",
        size=8.5, color="#666666", x=0.01, ha="left",
    )  # fmt: skip
