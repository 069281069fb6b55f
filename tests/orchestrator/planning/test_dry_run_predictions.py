"""Estimates of the dry run: memory of each cell, and hours with their source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.planning.dry_run import predicted_lines
from orchestrator.planning.planned_device import PlannedDevice, planned_device
from orchestrator.planning.planner import Planner
from orchestrator.planning.sources import ModelSource
from orchestrator.sweep import _parser, main, resume_command
from tests.orchestrator import run_builder, tiny_sweep
from tests.orchestrator.predicted import LinearPredictions, forecaster


def settings(resources: dict[str, Any], **space: Any) -> SweepConfig:
    value = tiny_sweep.mapping(resources=resources)
    value["space"] |= space
    return from_mapping(value)


def lines(
    config: SweepConfig, storage: Path, predictions: LinearPredictions | None = None
) -> Iterator[str]:
    device: PlannedDevice = planned_device(config.resources)
    planner = tiny_sweep.planner(config, **device.facts)
    forecasts = forecaster(device.capacity.bytes, predictions)
    return predicted_lines(planner, device, forecasts, storage=storage)


A_GPU = {"gpu_memory": "320MiB", "gpus": 4}


def test_each_cell_says_what_it_needs_and_whether_that_fits(tmp_path: Path) -> None:
    told = list(lines(settings(A_GPU, batch_size=[1, 4, 8]), tmp_path))
    assert told[0] == "Predicted for 4 x 320 MiB (resources.gpu_memory), bfloat16:"
    assert told[1] == "  a-model  none  lora"
    assert told[2].startswith(
        "    typical   300 MiB (94% of the device): training 300 MiB, evaluation 140 MiB; "
        "train 3e+12 + eval 1e+12 FLOPs  [rank"
    )
    assert "smallest  150 MiB (47% of the device)" in told[3]
    assert "largest   does not fit: lora of a-model" in told[4]
    assert "batch_size 8, sequence_length 256) needs 500 MiB; 320 MiB are available" in told[4]
    assert told[5] == "  a-model  nf4  lora"


def test_cells_come_one_by_one_as_they_are_predicted(tmp_path: Path) -> None:
    predictions = LinearPredictions()
    streamed = lines(settings(A_GPU), tmp_path, predictions)
    next(streamed), next(streamed)
    assert predictions.asked == []
    next(streamed)
    assert {request["trial"]["knobs"]["quantization"] for request in predictions.asked} == {"none"}


def test_every_trial_of_one_factor_is_predicted_and_no_more_are_summed(tmp_path: Path) -> None:
    value = tiny_sweep.mapping(resources=A_GPU)
    value["space"] |= {"batch_size": [4, 1, 8], "schedule": ["linear", "cosine"]}
    value["search"] = {"algorithm": "one_factor", "trials": 20}
    _, *trials, total, _ = lines(from_mapping(value), tmp_path)
    assert [trial.partition(": ")[0].strip() for trial in trials] == [
        "the reference", "quantization nf4, double_quantization false", "rank 4", "batch_size 1",
        "batch_size 8", "schedule cosine",
    ]  # fmt: skip
    assert trials[3].startswith("  batch_size 1: 150 MiB (47% of the device): training 150 MiB")
    assert trials[4].startswith("  batch_size 8: does not fit: lora of a-model (none, batch_size 8")
    launched = "5 trials that none stops early, of those that are not refused"
    assert total == f"  {launched}: about 2e+13 FLOPs"


def test_more_trials_than_configurations_are_not_summed(tmp_path: Path) -> None:
    value = tiny_sweep.mapping(resources=A_GPU, search={"algorithm": "grid", "trials": 99})
    *_, total, _ = lines(from_mapping(value), tmp_path)
    assert total.startswith("  4 trials that none stops early")


def test_what_can_not_run_is_not_summed(tmp_path: Path, base_models: Path) -> None:
    """Of two rows of a checkpoint that is saved quantized only its own one."""
    saved = shutil.copytree(base_models / "small", tmp_path / "saved")
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config = json.loads((saved / "config.json").read_text()) | {"quantization_config": stored}
    (saved / "config.json").write_text(json.dumps(config))
    value = tiny_sweep.mapping(str(saved), resources=A_GPU)
    value["search"] = {"algorithm": "random", "trials": 3}
    device = planned_device(from_mapping(value).resources)
    planner = Planner(from_mapping(value), device=device.facts)
    planner.prepare(ask_the_hub=False)
    forecasts = forecaster(device.capacity.bytes)
    *_, total, _ = predicted_lines(planner, device, forecasts, storage=tmp_path)
    launched = "2 trials that none stops early, of those that are not refused"
    assert total == f"  {launched}: about 8e+12 FLOPs"


def test_two_models_of_the_hub_have_their_own_predictions_without_it(tmp_path: Path) -> None:
    value = tiny_sweep.mapping(resources=A_GPU)
    value["space"]["model"] = names = ["owner/one-model", "owner/other-model"]
    config = from_mapping(value)
    device, predictions = planned_device(config.resources), LinearPredictions()
    planner = Planner(config, device=device.facts)
    planner.prepare(ask_the_hub=False)
    specs = [planner.spec(found) for found in planner.cell_configurations()]
    assert len({spec.trial_id for spec in specs}) == len(specs) == 4
    assert len({spec.model_digest for spec in specs}) == 2
    forecasts = forecaster(device.capacity.bytes, predictions)
    assert len([*predicted_lines(planner, device, forecasts, storage=tmp_path)]) > 4
    asked = [request["trial"]["knobs"]["model"] for request in predictions.asked]
    assert set(asked) == set(names) and asked.count(names[0]) == asked.count(names[1])


def test_a_model_without_weights_is_planned_for_and_said_to_be_without(tmp_path: Path) -> None:
    config = settings(A_GPU)
    device = planned_device(config.resources)
    planner = tiny_sweep.planner(config, **device.facts)
    planner.models |= {n: replace(m, has_weights=False) for n, m in planner.models.items()}
    forecasts = forecaster(device.capacity.bytes)
    told = list(predicted_lines(planner, device, forecasts, storage=tmp_path))
    assert "  a-model has no weights: it can be planned for, and not trained" in told
    assert not any("no weights" in line for line in lines(config, tmp_path))


def test_flops_of_all_trials_and_no_hours_where_nothing_was_measured(tmp_path: Path) -> None:
    *_, total, hours = lines(settings(A_GPU), tmp_path)
    assert total == "  4 trials that none stops early: about 1.6e+13 FLOPs"
    assert hours == "  device hours: unknown, nothing has been measured on the planned GPU"


def test_assumed_hours_say_what_they_assume(tmp_path: Path) -> None:
    *_, hours = lines(settings({**A_GPU, "accelerator_type": "A100"}), tmp_path)
    assert "if 30% of A100's 312 TFLOP/s are reached: assumed, not measured" in hours


def test_hours_are_those_of_the_throughput_measured_on_that_device(tmp_path: Path) -> None:
    run = run_builder.new_run(tmp_path / "earlier")
    done = {"train_flops": 3e12, "eval_flops": 1e12, "device_seconds": 2.0}
    run_builder.add_trial(run, right=[1], metrics=done)
    run_builder.add_trial(run, right=[1], metrics={**done, "device_shared": 1.0}, rank=3)
    run_builder.add_trial(run, right=[1], metrics=done, rank=4, state="stopped")
    config = settings({"gpu_memory": "320MiB", "accelerator_type": "cpu"})
    *_, hours = lines(config, tmp_path)
    assert "at the 2e+12 FLOP/s measured on cpu" in hours


def test_what_can_not_be_predicted_is_said(tmp_path: Path) -> None:
    told = list(lines(settings(A_GPU), tmp_path, LinearPredictions(known=False)))
    assert "can't be predicted" in told[2]
    assert not [line for line in told if "FLOPs" in line]


def test_a_model_of_the_hub_that_is_not_here_is_the_reason(tmp_path: Path) -> None:
    config = settings(A_GPU, model="some-owner/some-model")
    device: PlannedDevice = planned_device(config.resources)
    planner = tiny_sweep.planner(config, **device.facts)
    planner.models["some-owner/some-model"] = ModelSource("some-owner/some-model", "unknown")
    forecasts = forecaster(device.capacity.bytes, LinearPredictions(known=False))
    told = list(predicted_lines(planner, device, forecasts, storage=tmp_path))
    assert "can't be predicted: the config.json of some-owner/some-model is not in" in told[2]
    assert "(hf download some-owner/some-model config.json fetches it)" in told[2]


@pytest.mark.parametrize(("kind", "dtype"), [("T4", "float16"), ("A100", "bfloat16")])
def test_old_gpus_are_planned_in_float16(kind: str, dtype: str) -> None:
    config = settings({"gpu_memory": "16GiB", "accelerator_type": kind})
    assert planned_device(config.resources).facts["compute_dtype"] == dtype


def space_file(tmp_path: Path, base_models: Path) -> Path:
    value = tiny_sweep.mapping(str(base_models / "small"))
    return tiny_sweep.write_space(tmp_path / "space.yaml", value)


def test_no_predict_prints_the_cells_and_starts_nothing(
    tmp_path: Path, base_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = space_file(tmp_path, base_models)
    assert main([str(space), "--dry-run", "--no-predict", "--storage", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.rstrip().endswith("Nothing was run.")
    assert not (tmp_path / "space").exists()


def test_a_sweep_without_predictions_is_resumed_without_them() -> None:
    for words in (["a.yaml"], ["a.yaml", "--no-predict"]):
        command = resume_command(_parser().parse_args(words))
        assert command == " ".join(["python -m orchestrator.sweep", *words])


@pytest.mark.slow
def test_a_plan_for_hardware_that_is_not_here(tmp_path: Path, base_models: Path) -> None:
    space = space_file(tmp_path, base_models)
    plan = ("--dry-run", "--set", "resources.gpu_memory=600MiB")
    done = tiny_sweep.sweep(space, tmp_path, *plan, predicts=True)
    assert done.returncode == 0, done.stderr
    assert "Predicted for 600 MiB (resources.gpu_memory), bfloat16:" in done.stdout
    assert "% of the device): training" in done.stdout
    assert "does not fit" not in done.stdout
    plan = ("--dry-run", "--set", "resources.gpu_memory=1MiB")
    too_small = tiny_sweep.sweep(space, tmp_path, *plan, predicts=True)
    assert "does not fit" in too_small.stdout
    assert not (tmp_path / "space").exists()
