"""Legends and labels of the pictures tell models and trials apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orchestrator.analysis.pareto import COST
from orchestrator.reporting.plots.annotations import draw_legend, label_front
from orchestrator.reporting.plots.pareto import style_of
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_result import TrialResult
from tests.orchestrator.run_builder import CONFIG, add_trial, new_run, outcomes

LONG = "meta-llama-3-8b-instruct-finetuned"


def trials(folder: Path, models: Sequence[str]) -> list[TrialResult]:
    """Two trials of each model, which differ in their optimizer."""
    space = {"model": list(models), "optimizer": ["adamw", "sgd"]}
    run = new_run(folder, {**CONFIG, "space": space})
    for at, model in enumerate(models):
        for more, optimizer in enumerate(space["optimizer"]):
            place = 4 * at + 2 * more
            add_trial(run, right=outcomes(20 + 8 * place), model=model, optimizer=optimizer,
                      metrics={COST: (10 + 10 * place) * 2**20})  # fmt: skip
    return read_trials(run)


def drawn(items: Sequence[TrialResult]) -> tuple[list[str], list[str]]:
    """The texts of the legend and of the labels, in a picture with room for all."""
    figure = Figure(figsize=(30.0, 20.0))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for item in items:
        axes.plot(item.metrics[COST], 100 * (item.value() or 0), "o")
    draw_legend(axes, items, style=style_of(items))
    label_front(figure, axes, items, items)
    legend = axes.get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    return shown, [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("models", "shown"),
    [
        (["exp1/final", "exp2/final"], ["exp1/final", "exp2/final"]),
        ([f"{LONG}-v1", f"{LONG}-v2"], ["…struct-finetuned-v1", "…struct-finetuned-v2"]),
        (["a/" + LONG, "b/" + LONG], ["a/meta-llama-3-8b-i…", "b/meta-llama-3-8b-i…"]),
        ([f"{LONG}-a-{LONG}", f"{LONG}-b-{LONG}"], [f"{LONG}-a-{LONG}", f"{LONG}-b-{LONG}"]),
    ],
)
def test_two_models_have_two_names(tmp_path: Path, models: list[str], shown: list[str]) -> None:
    items = trials(tmp_path / "run", models)
    legend, labels = drawn(items)
    assert [name for name in legend if name in shown] == shown
    assert len({item.model_name for item in items}) == 2
    assert len({style_of(items)(item)["marker"] for item in items}) == 2
    words = [(name, optimizer) for name in shown for optimizer in ("adamw", "sgd")]
    assert len(labels) == len(set(labels)) == 4
    assert all(name in label and optimizer in label
               for label, (name, optimizer) in zip(labels, words, strict=True))  # fmt: skip


def test_a_label_stays_short_where_quantization_and_rank_tell(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    for place, quantization in enumerate(("nf4", "none")):
        add_trial(run, right=outcomes(20 + 30 * place), quantization=quantization,
                  metrics={COST: (10 + 20 * place) * 2**20})  # fmt: skip
    assert drawn(read_trials(run))[1] == ["nf4 r8 · 20.0", "none r8 · 50.0"]
