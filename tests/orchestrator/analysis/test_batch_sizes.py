"""Batch sizes: the fastest by its median, those that tie with it, and their memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.batch_sizes import Study, studies
from orchestrator.reporting.builder import build_report
from orchestrator.reporting.sections.batch_sizes import HEADING
from orchestrator.runs.results import read_trials
from tests.orchestrator.run_builder import add_trial, new_run, outcomes
from trainables.storage.run_folder import RunFolder

MEBIBYTE = 2**20


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep")


def add(
    run: RunFolder,
    batch_size: int,
    speeds: Sequence[float],
    *,
    of: int = 16,
    memory: int = 0,
    shared: float = 0.0,
    device: str = "",
    **knobs: Any,
) -> None:
    """Trials of one batch size; their seeds differ, as do their learning rates."""
    for seed, speed in enumerate(speeds):
        measured = {
            "examples_per_second": speed,
            "device_shared": shared,
            "train_peak_memory_bytes": float((memory or 10 * batch_size) * MEBIBYTE),
        }
        shape = {"batch_size": batch_size, "gradient_accumulation": of // batch_size}
        given = {**shape, "seed": seed, "learning_rate": 1e-3 * (seed + 1), **knobs}
        folder = add_trial(run, right=outcomes(6), metrics=measured, **given)
        if device:
            folder.write_summary({**(folder.summary() or {}), "provenance": {"device": device}})


def the_study(run: RunFolder) -> Study:
    (study,) = studies(read_trials(run))
    return study


def section(run: RunFolder) -> str:
    return build_report(run).markdown().split(f"## {HEADING}\n")[1].split("\n## ", maxsplit=1)[0]


def test_the_highest_median_is_best_and_what_lies_within_the_noise_ties(run: RunFolder) -> None:
    add(run, 1, [40, 41, 39])
    add(run, 4, [99, 102, 100])
    add(run, 8, [104, 98, 101])
    add(run, 16, [80, 81, 82])
    study = the_study(run)
    assert [size.rows for size in study.sizes] == [1, 4, 8, 16]
    assert study.best.rows == 8 and study.best.speed == 101
    assert [size.rows for size in study.ties] == [4]
    assert study.noise == pytest.approx(0.022, abs=0.004)


def test_without_noise_a_small_difference_is_one(run: RunFolder) -> None:
    add(run, 4, [100.0, 100.1, 99.9])
    add(run, 8, [103.0, 103.1, 102.9])
    assert the_study(run).ties == []


def test_one_wild_trial_does_not_make_a_batch_size_the_best(run: RunFolder) -> None:
    add(run, 4, [100, 101, 99])
    add(run, 8, [90, 91, 500])
    assert the_study(run).best.rows == 4


def test_where_nothing_was_tried_twice_a_margin_is_assumed_and_said(run: RunFolder) -> None:
    add(run, 2, [90])
    add(run, 4, [97])
    add(run, 8, [100])
    study = the_study(run)
    assert study.noise is None and [size.rows for size in study.ties] == [4]
    assert "no batch size was tried twice: less than 5% counts as none" in section(run)


def test_speed_counts_only_alone_and_among_devices_of_one_name(run: RunFolder) -> None:
    add(run, 2, [50, 51], device="A")
    add(run, 4, [70, 71], device="A")
    add(run, 4, [900, 901], device="A", shared=1.0, seed=9)
    add(run, 4, [900], device="B", seed=10)
    on_a, on_b = sorted(studies(read_trials(run)), key=lambda study: study.device)
    assert on_a.best.rows == 4 and on_a.best.speeds == [70, 71]
    assert on_b.device == "B" and len(on_b.timed) == 1


def test_trials_that_differ_in_what_speed_depends_on_are_no_study(run: RunFolder) -> None:
    add(run, 2, [50], rank=4)
    add(run, 4, [70], rank=8)
    assert studies(read_trials(run)) == [] and f"## {HEADING}" not in build_report(run).markdown()


def test_the_report_names_the_best_and_says_what_it_costs(run: RunFolder) -> None:
    add(run, 1, [40, 41, 39])
    add(run, 4, [99, 102, 100])
    add(run, 8, [104, 98, 101])
    add_trial(run, state="infeasible", reason="too large", batch_size=16, seed=1)
    text = section(run)
    assert "| 8 | 2 | 16 | 3 | 101 | 98–104 | 100% | 80.0 MiB | best |" in text
    assert "| 4 | 4 | 16 | 3 | 100 | 99–102 | 99% | 40.0 MiB | tie |" in text
    assert "| 1 | 16 | 16 | 3 | 40 | 39–41 | 40% | 10.0 MiB |  |" in text
    assert "| 16 | 1 | 16 | 1 infeasible | – | – | – | – | no speed |" in text
    assert (
        "**batch_size 8 trains fastest: 101 examples/s, 2.5 times as many as batch_size 1, "
        "in 80.0 MiB instead of 10.0 MiB.**"
    ) in text
    assert "batch_size 4 ties with it: no difference in speed found (t test at 5%" in text
    assert "Of these batch_size 4 takes the least memory: 40.0 MiB." in text


def test_a_study_whose_trials_all_shared_their_device_is_told_how_not_to(run: RunFolder) -> None:
    add(run, 2, [50], shared=1.0)
    add(run, 4, [70], shared=1.0)
    text = section(run)
    assert "placement: exclusive" in text and "fastest" not in text


def test_what_fitted_stands_for_an_automatic_batch(run: RunFolder) -> None:
    add(run, 2, [50])
    for rows in (4.0, None):
        told = {} if rows is None else {"executed_batch_size": rows}
        metrics = {"examples_per_second": 60.0, "device_shared": 0.0, **told}
        state = "infeasible" if rows is None else "finished"
        add_trial(run, right=outcomes(6), state=state, metrics=metrics, batch_size="auto",
                  effective_batch_size=16, seed=7 + len(told))  # fmt: skip
    text = section(run)
    assert "| auto (4) | 4 | 16 | 1 |" in text and "| auto | – | 16 | 1 infeasible |" in text
