"""Costs of trials: columns, estimate errors, ranks and FLOPs from measurements and estimates."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.costs import (
    error_of,
    first_to_reach,
    learning_curve,
    prediction_errors,
    speed_ranks,
)
from orchestrator.reporting.plots.flops import caption, plot_flops
from orchestrator.reporting.results_csv import write_results
from orchestrator.runs.derived_metrics import (
    PREDICTED,
    cost_metrics,
    gpu_memory_bytes,
    memory_byte_seconds,
)
from orchestrator.runs.results import read_trials
from orchestrator.tracking.sync import finish_trial
from orchestrator.tracking.tracker import RunEnd
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, outcomes
from trainables.resources.gpu_overhead import GPU_OVERHEAD_BYTES
from trainables.storage.run_folder import RunFolder

MEBIBYTE = 2**20
PREDICTION: dict[str, Any] = {
    "train_memory_bytes": 63 * MEBIBYTE,
    "eval_memory_bytes": 33 * MEBIBYTE,
    "device_memory_bytes": 70 * MEBIBYTE,
    "train_flops": 2.0e12,
    "eval_flops": 1.0e12,
    "training": {"token": 1.0, "pair": 1.0, "logit": 1.0},
    "device": "cpu",
}
DONE = {"train_flops": 2.0e12, "eval_flops": 0.5e12, "device_seconds": 20.0, "device_shared": 0.0}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return new_run(tmp_path / "sweep")


def test_a_row_holds_what_was_predicted_and_what_was_measured(run: RunFolder) -> None:
    add_trial(run, right=outcomes(60), metrics=DONE, prediction=PREDICTION)
    add_trial(run, right=outcomes(60), rank=4)
    write_results(run)
    with run.results_file.open(newline="") as file:
        row, without = csv.DictReader(file)
    assert row["predicted_train_memory_bytes"] == "66060288.0"
    assert row["train_peak_memory_bytes"] == str(64 * MEBIBYTE)
    assert [float(row[name]) for name in DONE] == [2.0e12, 0.5e12, 20.0, 0.0]
    assert float(row["memory_byte_seconds"]) == 64 * MEBIBYTE * 20.0
    assert float(row["predicted_eval_flops"]) == 1.0e12
    costs = [*PREDICTED, *DONE, "memory_byte_seconds", "reserved_peak_memory_bytes"]
    assert [without[name] for name in costs] == [""] * len(costs)


def test_a_tracker_is_told_the_same(run: RunFolder) -> None:
    folder = add_trial(run, right=outcomes(60), metrics=DONE, prediction=PREDICTION)
    told: list[RunEnd] = []

    class Told:
        def finish(self, end: RunEnd) -> None:
            told.append(end)

    finish_trial(Told(), folder, label="a")  # type: ignore[arg-type]
    (trial,) = read_trials(run)
    assert {**trial.metrics, **trial.costs}.items() <= told[0].metrics.items()
    assert set(PREDICTED) <= told[0].metrics.keys()


def test_a_damaged_prediction_is_none_and_is_said(run: RunFolder) -> None:
    folder = add_trial(run, right=outcomes(60), prediction=PREDICTION)
    folder.estimate_file.write_text("{")
    (trial,) = read_trials(run)
    assert trial.costs == {} and trial.finished
    assert len(trial.warnings) == 1 and "prediction.json" in trial.warnings[0]


def test_what_was_not_measured_costs_nothing_that_is_known() -> None:
    assert cost_metrics({}, None) == {}
    assert memory_byte_seconds({"device_seconds": 3.0}) is None
    assert gpu_memory_bytes({"device_seconds": 3.0}) is None
    assert cost_metrics({}, {"train_flops": None, "train_memory_bytes": 5}) == {
        "predicted_train_memory_bytes": 5.0
    }


def test_a_gpu_must_hold_the_tensors_and_what_cuda_takes_beside_them() -> None:
    on_cpu = {"train_peak_memory_bytes": 700.0, "eval_peak_memory_bytes": 900.0}
    assert gpu_memory_bytes(on_cpu) == 900 + GPU_OVERHEAD_BYTES
    on_gpu = {
        **on_cpu,
        "allocated_peak_memory_bytes": 1000.0,
        "reserved_peak_memory_bytes": 1500.0,
        "device_peak_memory_bytes": 1900.0,
    }
    assert gpu_memory_bytes({**on_gpu, "device_shared": 0.0}) == 1000 + 400
    assert gpu_memory_bytes({**on_gpu, "device_shared": 1.0}) == 1000 + GPU_OVERHEAD_BYTES


@pytest.mark.slow  # imports torch
def test_what_is_assumed_of_cuda_is_what_predictions_assume() -> None:
    from trainables.simulation.devices import DEVICES

    terms = DEVICES["cuda"].constants.values()
    assert sum(term.bytes for term in terms) == GPU_OVERHEAD_BYTES


def test_an_error_is_a_share_of_what_was_measured() -> None:
    found = error_of([0.1, -0.2, 0.0, 0.3, -0.05])
    assert (found.count, found.median, found.under) == (5, 0.1, -0.2)
    assert found.high == pytest.approx(0.28)  # as numpy.quantile([...], 0.95)
    assert error_of([0.2]).under == 0.0


def test_errors_are_told_by_method_and_quantization_of_finished_trials(run: RunFolder) -> None:
    measured = {"train_peak_memory_bytes": 126 * MEBIBYTE}
    add_trial(run, right=outcomes(6), prediction=PREDICTION)
    add_trial(run, right=outcomes(6), prediction=PREDICTION, metrics=measured, rank=4)
    add_trial(run, right=outcomes(6), prediction=PREDICTION, quantization="nf4")
    add_trial(run, right=outcomes(6), rank=2)  # nothing was predicted
    add_trial(run, right=outcomes(6), prediction=PREDICTION, state="stopped", rank=16)
    found = prediction_errors(read_trials(run), "predicted_train_memory_bytes")
    assert list(found) == [("lora", "nf4"), ("lora", "none")]
    assert found["lora", "none"].count == 2 and found["lora", "none"].under == -0.5
    assert found["lora", "nf4"].under == pytest.approx(63 / 64 - 1)


def test_flops_to_reach_a_target_are_those_of_the_cheapest_rung_that_did(run: RunFolder) -> None:
    cheap = {"train_flops": 1e12}
    fast = add_trial(run, state="stopped", rungs={0.0625: 0.1, 0.25: 0.5}, metrics=cheap, rank=2)
    slow = add_trial(run, right=outcomes(70), rungs={0.25: 0.2, 1.0: 0.7},
                     metrics={"train_flops": 3e12})  # fmt: skip
    add_trial(run, right=outcomes(99), rungs={0.25: 0.9}, rank=16)  # nobody counted its FLOPs
    results = read_trials(run)
    assert [rung.flops for rung in learning_curve(results[0])] == [0.0625e12, 0.25e12]
    half, more = first_to_reach(results, 0.5), first_to_reach(results, 0.6)
    assert half is not None and (half.trial.trial_id, half.flops) == (fast.trial_id, 0.25e12)
    assert more is not None and (more.trial.trial_id, more.fraction) == (slow.trial_id, 1.0)
    assert first_to_reach(results, 0.8) is None


def test_speed_is_ranked_only_among_trials_alone_on_like_devices(run: RunFolder) -> None:
    def at(speed: float, shared: float | None, device: str, rank: int, workers: int = 1) -> str:
        told = {} if shared is None else {"device_shared": shared}
        folder = add_trial(run, right=outcomes(6), rank=rank, workers=workers,
                           metrics={"examples_per_second": speed, **told})  # fmt: skip
        summary = folder.summary() or {}
        folder.write_summary({**summary, "provenance": {"device": device}})
        return folder.trial_id

    slow, fast = at(10, 0.0, "A", 1), at(30, 0.0, "A", 2)
    at(99, 1.0, "A", 4)  # shared
    at(98, None, "A", 8)  # not known
    other = at(5, 0.0, "B", 16)
    four = at(70, 0.0, "A", 32, workers=4)
    assert speed_ranks(read_trials(run)) == {fast: 1, slow: 2, other: 1, four: 1}


def test_the_picture_of_flops_is_drawn_once_a_finished_trial_has_counted_them(
    run: RunFolder,
) -> None:
    add_trial(run, right=outcomes(60), rungs={0.25: 0.4, 1.0: 0.6})
    assert plot_flops(run) is None and not run.flops_file.exists()
    add_trial(run, right=outcomes(60), rungs={0.25: 0.4, 1.0: 0.6}, metrics=DONE, rank=4)
    add_trial(run, state="stopped", rungs={0.25: 0.1}, metrics=DONE, rank=16)
    add_baseline(run, outcomes(3))
    assert plot_flops(run) == run.flops_file
    assert run.flops_file.read_bytes().startswith(b"\x89PNG\r\n")
    text = caption(read_trials(run))
    assert "1 finished of 3 trials (marked), 1 on the front" in text and "1 more faint" in text
    assert "1 without a rung that has both numbers" in text
