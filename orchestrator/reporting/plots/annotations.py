"""Legend, labels of the front's members and axis values of pareto.png and flops.png."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from orchestrator.analysis.pareto import COST, cost_of
from orchestrator.formatting import format_bare
from orchestrator.runs.trial_label import quantization_name, told_apart
from orchestrator.runs.trial_result import TrialResult

KNOWN = ("none", "int8", "nf4", "fp4")
INK = "#333333"
LABELLED = 8  # members of the front, at most
SHORT = 20  # characters of a model's name in the legend
Style = Callable[[TrialResult], dict[str, Any]]


def height(item: TrialResult) -> float:
    """The primary metric of a trial on its axis: shares are in percent."""
    value = item.value()
    assert value is not None
    return item.primary.scale * value


def draw_legend(axes: Any, items: Sequence[TrialResult], *, style: Style) -> None:
    """Draws the legend: quantization by colour, model by marker, front, untrained baselines."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="none", label="quantization")]
    by_quantization = {quantization_name(item.knobs): item for item in items}
    order = [*KNOWN, *sorted(set(by_quantization).difference(KNOWN))]
    for name in [name for name in order if name in by_quantization]:
        look = {**style(by_quantization[name]), "marker": "o"}
        handles.append(Line2D([], [], **look, markersize=7, label=name))
    handles += [Line2D([], [], color="none", label=""), Line2D([], [], color="none", label="model")]
    models = {item.model_name: item for item in items}
    short = _short_names(models)
    for name, item in sorted(models.items()):
        look = {**style(item), "color": "#777777"}
        handles.append(Line2D([], [], **look, markersize=7, label=short[name]))
    handles += [Line2D([], [], color="none", label=""),
                Line2D([], [], color=INK, linewidth=1.4, label="Pareto front")]  # fmt: skip
    if any(item.is_baseline for item in items):
        handles.append(Line2D([], [], color="#777777", marker="o", linestyle="none",
                              markerfacecolor="white", label="untrained"))  # fmt: skip
    legend = axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0),
                         frameon=False, fontsize=9, labelcolor=INK, handlelength=1.4)  # fmt: skip
    for text in legend.get_texts():
        if text.get_text() in ("quantization", "model"):
            text.set_weight("bold")


def label_front(
    figure: Any,
    axes: Any,
    members: Sequence[TrialResult],
    all_drawn: Sequence[TrialResult],
    *,
    unit: int = 1,
    cost: str = COST,
) -> None:
    """Labels each member at the first offset where the label hides nothing; else not at all."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    centres = {
        key.trial_id: axes.transData.transform((cost_of(key, cost) / unit, height(key)))
        for key in all_drawn
    }
    ring = 7 * figure.dpi / 72  # pixels that another point and its ring take around them
    room = axes.bbox.padded(4)
    taken: list[Any] = []
    shown = _spread(members)
    labels = _front_labels(shown, _short_names({item.model_name for item in all_drawn}))
    for item, label in zip(shown, labels, strict=True):
        at = (cost_of(item, cost) / unit, height(item))
        others = [centre for key, centre in centres.items() if key != item.trial_id]
        for offset, horizontal in _OFFSETS:
            text = axes.annotate(label, at, offset, textcoords="offset points",
                                 size=8.5, ha=horizontal, va="center", color=INK, zorder=6,
                                 path_effects=halo)  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = room.contains(box.x0, box.y0) and room.contains(box.x1, box.y1)
            hides = box.padded(3).count_overlaps(taken) or box.padded(ring).count_contains(others)
            if inside and not hides:
                taken.append(box)
                break
            text.remove()


_OFFSETS = tuple(  # points; above a step and beside the bar first
    ((x, y), horizontal)
    for y in (9, -9, 16, -16, 24, -24, 34, -34)
    for x, horizontal in ((9, "left"), (-9, "right"))
)


def _spread(members: Sequence[TrialResult]) -> list[TrialResult]:
    """At most LABELLED members, at equal distances, with both ends."""
    if len(members) <= LABELLED:
        return list(members)
    last = len(members) - 1
    return [members[round(place * last / (LABELLED - 1))] for place in range(LABELLED)]


def _front_labels(members: Sequence[TrialResult], models: Mapping[str, str]) -> list[str]:
    """Quantization, rank and value of each, and what else tells it from others that have these.
    `models` are the names of the legend."""
    labels = [item.label.replace(item.model_name, models[item.model_name]) for item in members]
    names = told_apart(list(map(_base_and_rank, members)), labels)
    return [
        f"{name} · {format_bare(item.primary, item.value() or 0.0)}"
        for name, item in zip(names, members, strict=True)
    ]


def _base_and_rank(item: TrialResult) -> str:
    rank = f" r{item.knobs['rank']}" if "rank" in item.knobs else ""
    return f"{quantization_name(item.knobs)}{rank}"


def _short_names(names: Collection[str]) -> dict[str, str]:
    """The names, long ones without their end, or without their start if others begin alike; in
    full if they also end alike."""
    found = {name: [_start(name), _end(name), name] for name in names}
    taken = Counter(short for shorts in found.values() for short in set(shorts))
    return {
        name: next((short for short in shorts if taken[short] == 1), name)
        for name, shorts in found.items()
    }


def _start(name: str) -> str:
    return name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"


def _end(name: str) -> str:
    return name if len(name) <= SHORT else f"…{name[1 - SHORT :]}"
