"""A new row of KNOBS is known everywhere: in spaces, ids, plans, the order of memory, forecasts,
training and its report. Only rows are added, and the method's class that reads them.

`new_rows.ShallowLoRA` reads `adapted_layers`, on which memory depends, and `rank_stabilized`, on
which neither memory nor speed does. `test_new_rows_sweep.py` runs a sweep.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from orchestrator.analysis.batch_sizes import studies
from orchestrator.config.reader import from_mapping
from orchestrator.planning.dry_run import predicted_lines
from orchestrator.planning.planned_device import PlannedDevice
from orchestrator.planning.representatives import representatives
from orchestrator.predict.models import asked_models
from orchestrator.reporting.builder import build_report
from orchestrator.reporting.load_snippet import loading_lines
from orchestrator.reporting.results_csv import write_results
from orchestrator.runs.results import read_trials
from orchestrator.search.feasibility import FeasibilityModel
from orchestrator.search.memory_order import MemoryDemand
from orchestrator.space.enumeration import grid_configurations
from orchestrator.space.grammar import parse_space
from orchestrator.space.sampling import sample
from tests.contracts.new_rows import NEW_KNOBS, ShallowLoRA
from tests.contracts.simulated import config_of, simulating_forecaster
from tests.contracts.test_resumed_curves import BUDGET, INTERRUPTIONS, interrupted, to_its_end
from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import add_trial, new_run, trial_label
from tests.tiny_trials import assert_same_curve, make_spec, run
from trainables.errors import InputError
from trainables.methods.registry import METHODS
from trainables.resources.estimate import Workload
from trainables.simulation.estimate import digest, predict
from trainables.spec.knobs import KNOBS, canonical
from trainables.storage.run_folder import RunFolder

LAYERS, STABLE = NEW_KNOBS


@pytest.fixture(scope="module")
def ids_before() -> list[str]:
    """The ids of trials before the rows were added."""
    assert LAYERS not in KNOBS
    return _ids()


@pytest.fixture(scope="module", autouse=True)
def _new_rows(ids_before: list[str]) -> Iterator[None]:
    del ids_before  # made first
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "lora", ShallowLoRA)
        for name, knob in NEW_KNOBS.items():
            patch.setitem(KNOBS, name, knob)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> RunFolder:
    """A run with two finished trials that differ in the new knob."""
    found = new_run(tmp_path_factory.mktemp("trained"), {**tiny_sweep.mapping(str(tiny_llama))})
    for layers in (1, 2):
        run(make_spec(tiny_llama, adapted_layers=layers), found.trials_folder)
    return found


def _ids() -> list[str]:
    planner = tiny_sweep.planner(tiny_sweep.config())
    space = planner.config.space
    configurations = [configuration for configuration, _ in grid_configurations(space)]
    return [planner.spec(configuration).trial_id for configuration in configurations]


def test_trials_that_do_not_name_it_keep_their_ids(ids_before: list[str]) -> None:
    assert _ids() == ids_before
    other = canonical({"model": "m", LAYERS: 2})
    assert other[LAYERS] == 2 and LAYERS not in canonical({"model": "m", LAYERS: 1000})
    assert LAYERS not in canonical({"model": "m", "method": "full", LAYERS: 2})


def test_a_space_may_vary_it() -> None:
    space = parse_space({"model": "m", "method": [{"lora": {LAYERS: [1, 2]}}, "full"]})
    drawn = [sample(space, random.Random(seed)) for seed in range(20)]
    assert {each.get(LAYERS) for each in drawn} == {1, 2, None}
    assert all((LAYERS in each) == (each["method"] == "lora") for each in drawn)
    with pytest.raises(InputError, match=rf"space\.{LAYERS}: got 0; needs a whole number >= 1"):
        parse_space({"model": "m", LAYERS: 0})
    with pytest.raises(InputError, match=rf"Did you mean '{LAYERS}'\?"):
        parse_space({"model": "m", "adapted_layer": 1})
    with pytest.raises(InputError, match=rf"{LAYERS} is not read with method full"):
        parse_space({"model": "m", "method": [{"full": {LAYERS: 2}}]})


def test_its_label_stands_in_the_trials() -> None:
    knobs = canonical({"model": "m", LAYERS: 2, STABLE: True})
    assert trial_label(knobs) == "m none r8 a16 lr2.0e-04 b8x1 l2 rs"
    assert trial_label(canonical({"model": "m"})) == "m none r8 a16 lr2.0e-04 b8x1"


def test_memory_is_ordered_by_its_row() -> None:
    def demand(**knobs: Any) -> MemoryDemand:
        return MemoryDemand.of(canonical({"model": "m", **knobs}))

    assert demand(adapted_layers=2).is_at_least(demand(adapted_layers=1))
    assert not demand(adapted_layers=1).is_at_least(demand(adapted_layers=2))
    assert demand().is_at_least(demand(adapted_layers=2))  # the unsaid default is all layers
    assert demand(rank_stabilized=True) == demand()
    known = FeasibilityModel([LAYERS, STABLE])
    known.update("too large", canonical({"model": "m", LAYERS: 2}), fits=False)
    assert known.rules_out(canonical({"model": "m", LAYERS: 3, STABLE: True})) == "too large"
    assert known.rules_out(canonical({"model": "m", LAYERS: 1})) is None


def test_a_plan_shows_it(tiny_llama: Path, tmp_path: Path) -> None:
    value = tiny_sweep.mapping(str(tiny_llama))
    value["space"] |= {LAYERS: [2, 1], "quantization": "none", "rank": 2}
    settings = from_mapping(value)
    (found,) = representatives(settings).values()
    assert (found.smallest[LAYERS], found.largest[LAYERS]) == (1, 2)
    planner = tiny_sweep.planner(settings)
    planner.models.clear()  # this one has a folder
    forecasts = simulating_forecaster(1 << 30)
    device = PlannedDevice({}, forecasts.capacity or pytest.fail("it has one"))
    lines = list(predicted_lines(planner, device, forecasts, storage=tmp_path))
    assert lines[2].endswith(f", optimizer adamw, {LAYERS} 2]")
    assert lines[3].endswith(f", optimizer adamw, {LAYERS} 1]")


def test_a_simulation_depends_on_it_and_is_not_taken_for_another(tiny_llama: Path) -> None:
    config = config_of(tiny_llama)
    workload = Workload(batch_size=2, sequence_length=32, eval_batch_size=2, new_tokens=2)
    one, two, stable = (
        make_spec(tiny_llama, adapted_layers=layers, rank_stabilized=stable).knobs
        for layers, stable in ((1, False), (2, False), (2, True))
    )
    few, many = predict(config, one, workload), predict(config, two, workload)
    assert 2 * few.terms["trained"].bytes == many.terms["trained"].bytes
    assert few.train_memory_bytes < many.train_memory_bytes

    def key(knobs: Any) -> str:
        return digest(config, knobs, workload, device="cpu")

    assert key(one) != key(two) == key(stable)


def test_a_forecast_decides_by_it(tiny_llama: Path) -> None:
    one, two = (make_spec(tiny_llama, adapted_layers=layers) for layers in (1, 2))
    unlimited = simulating_forecaster(None).of(one)
    assert unlimited is not None
    limited = simulating_forecaster(unlimited.device_memory_bytes)
    fits, refused = limited.of(one), limited.of(two)
    assert fits is not None and fits.refusal is None
    assert refused is not None and refused.refusal is not None
    assert refused.refusal.startswith("lora of ")


def test_batch_sizes_are_compared_where_speed_does_not_depend_on_it(tmp_path: Path) -> None:
    found = new_run(tmp_path / "run")
    measured = {"examples_per_second": 1.0, "device_shared": 0.0}
    for stable, batch_size in ((False, 4), (True, 8)):
        add_trial(found, right=[1], metrics=measured, batch_size=batch_size, rank_stabilized=stable)
    (study,) = studies(read_trials(found))
    assert [size.knobs["batch_size"] for size in study.sizes] == [4, 8]
    other = new_run(tmp_path / "other")
    for layers, batch_size in ((1, 4), (2, 8)):
        add_trial(other, right=[1], metrics=measured, batch_size=batch_size, adapted_layers=layers)
    assert studies(read_trials(other)) == []


def test_interrupted_over_and_over_it_has_the_same_curve(tiny_llama: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        LAYERS: 1,
        STABLE: True,
        "batch_size": 2,
        "gradient_accumulation": 2,
        "dropout": 0.2,
    }
    spec = make_spec(tiny_llama, budget=BUDGET, **given)
    whole = run(spec, tmp_path / "whole")
    place = tmp_path / "0"
    for number, interruption in enumerate(INTERRUPTIONS[:3], start=1):
        place = interrupted(spec, place, interruption, found=tmp_path / str(number))
    assert_same_curve(to_its_end(spec, place), whole)


def test_it_decides_what_is_trained_and_what_the_report_says(trained: RunFolder) -> None:
    for folder in trained.trials():
        layers = folder.spec().knobs[LAYERS]
        names = load_file(folder.adapter_folder / "adapter_model.safetensors")
        assert {name.split(".layers.")[1].split(".")[0] for name in names} == {
            str(layer) for layer in range(layers)
        }
    write_results(trained)
    with trained.results_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row[LAYERS] for row in rows} == {"1", "2"}
    text = build_report(trained).markdown()
    assert f"{LAYERS}: 1" in text or f"{LAYERS}: 2" in text
    assert " b4x1 l1" in text and " b4x1 l2" in text


def test_advice_and_predict_find_the_trial(trained: RunFolder) -> None:
    for folder in trained.trials():
        assert f"PeftModel.from_pretrained(model, '{folder.adapter_folder}')" in "\n".join(
            loading_lines(folder)
        )
        (asked,) = asked_models([str(folder.path)], with_bases=False)
        assert asked.kind == "LoRA"
        assert asked.label.endswith(f" l{folder.spec().knobs[LAYERS]}")
        assert asked.trained == folder.adapter_folder
