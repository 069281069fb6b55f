"""A new row of METHODS is known everywhere: in spaces, plans, forecasts, training and its report,
loading advice and `predict`. Only the row, and the row of its hyperparameter, are added.

`new_rows.Norms` trains the scales of the base's norms. `test_new_rows_sweep.py` runs a sweep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.config.reader import from_mapping
from orchestrator.planning.dry_run import describe, predicted_lines
from orchestrator.planning.forecast import Forecast
from orchestrator.planning.planned_device import PlannedDevice
from orchestrator.predict.models import asked_models
from orchestrator.reporting.builder import build_report
from orchestrator.reporting.load_snippet import loading_lines
from orchestrator.runs.results import read_trials
from orchestrator.runs.trial_label import method_name
from orchestrator.space.grammar import parse_space
from tests.contracts import test_methods
from tests.contracts.new_rows import METHOD_KNOBS, NEW_METHODS
from tests.contracts.simulated import config_of, simulating_forecaster
from tests.contracts.test_resumed_curves import BUDGET, INTERRUPTIONS, interrupted, to_its_end
from tests.orchestrator import tiny_sweep
from tests.orchestrator.run_builder import new_run, trial_label
from tests.tiny_trials import assert_same_curve, make_spec, run, shared_base
from trainables.errors import InputError
from trainables.evaluation.answering import Asked, answers
from trainables.methods.registry import METHODS
from trainables.resources.estimate import Workload
from trainables.simulation.estimate import predict
from trainables.spec.constraints import violations
from trainables.spec.knobs import KNOBS, canonical
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder

(NAME,) = NEW_METHODS
FLOAT32_BYTES = 4
KNOBS_OF_A_TRIAL: dict[str, Any] = {"method": NAME, "learning_rate": 5e-2}


@pytest.fixture(scope="module", autouse=True)
def _new_rows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for method, row in NEW_METHODS.items():
            patch.setitem(METHODS, method, row)
        for knob, hyperparameter in METHOD_KNOBS.items():
            patch.setitem(KNOBS, knob, hyperparameter)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> RunFolder:
    """A run with a finished trial of the new method and one of LoRA, and the untrained base."""
    found = new_run(tmp_path_factory.mktemp("trained"), {**tiny_sweep.mapping(str(tiny_llama))})
    for knobs in (KNOBS_OF_A_TRIAL, {"method": "lora"}, {"method": "untrained"}):
        run(make_spec(tiny_llama, **knobs), found.trials_folder)
    return found


def the_trial(found: RunFolder) -> TrialFolder:
    (folder,) = (each for each in found.trials() if each.spec().knobs["method"] == NAME)
    return folder


@pytest.mark.parametrize(
    "contract",
    [
        test_methods.test_something_is_trainable_if_and_only_if_the_method_trains,
        test_methods.test_what_attach_begins_with_is_the_base_and_detach_gives_it_back,
    ],
)
def test_it_keeps_the_contract_of_all_rows(
    contract: Callable[[str, Path], None], tiny_llama: Path, tmp_path: Path
) -> None:
    contract(NAME, tiny_llama)
    test_methods.test_every_hyperparameter_is_a_knob_whose_default_it_accepts(NAME)
    test_methods.test_canonical_knobs_make_the_method_with_its_defaults(NAME)
    test_methods.test_what_was_saved_is_loaded(NAME, tiny_llama, tmp_path)


def test_a_space_may_name_it_with_its_own_hyperparameter() -> None:
    space = {"model": "m", "method": [{"lora": {"rank": [4, 8]}}, {NAME: {"norms": ["final"]}}]}
    assert parse_space(space).knobs
    with pytest.raises(InputError, match=r"rank is not read with method norms"):
        parse_space({"model": "m", "method": [{NAME: {"rank": 8}}]})
    with pytest.raises(InputError, match=r"Did you mean 'norms'\?"):
        parse_space({"model": "m", "method": ["norm"]})


def test_its_configurations_have_their_own_ids_and_labels() -> None:
    knobs = canonical({"model": "a/m", "method": NAME, "rank": 64, "norms": "final"})
    assert knobs["norms"] == "final" and "rank" not in knobs
    assert "norms" not in canonical({"model": "a/m"})
    assert trial_label(knobs) == "m none norms lr2.0e-04 b8x1"
    assert method_name({**knobs, "workers": 2}) == "norms w2"


def test_constraints_ask_what_it_allows() -> None:
    assert violations(canonical({"model": "m", "method": NAME, "quantization": "nf4"})) is None
    assert violations(canonical({"model": "m", "method": NAME, "workers": 2})) is None
    sharded = canonical({"model": "m", "method": NAME, "workers": 2, "zero_stage": 2})
    assert violations(sharded) == (
        "method norms is not supported with zero_stage. Use zero_stage: 0."
    )


def test_a_plan_lists_its_cells_and_what_they_need(tiny_llama: Path, tmp_path: Path) -> None:
    value = tiny_sweep.mapping(str(tiny_llama))
    value["space"] |= {"method": [{NAME: {"norms": ["final", "all"]}}], "quantization": "none"}
    del value["space"]["rank"], value["space"]["alpha"]
    settings = from_mapping(value)
    planner = tiny_sweep.planner(settings)
    planner.models.clear()  # this one has a folder
    forecasts = simulating_forecaster(1 << 30)
    device = PlannedDevice({}, forecasts.capacity or pytest.fail("it has one"))
    described = describe(planner, new_run(tmp_path / "run"))
    assert f"    {tiny_llama}  none  norms: 2 configurations" in described
    assert "and 1 untrained baseline," in described
    lines = list(predicted_lines(planner, device, forecasts, storage=tmp_path))
    assert lines[1] == f"  {tiny_llama}  none  norms"
    assert lines[2].startswith("    typical   ") and "can't be predicted" not in lines[2]


def test_the_simulation_counts_what_it_trains(tiny_llama: Path) -> None:
    config = config_of(tiny_llama)
    workload = Workload(batch_size=2, sequence_length=32, eval_batch_size=2, new_tokens=2)
    every, final, full = (
        predict(config, make_spec(tiny_llama, method=method, norms=norms).knobs, workload)
        for method, norms in ((NAME, "all"), (NAME, "final"), ("full", "all"))
    )
    scales = 2 * config["num_hidden_layers"] + 1
    assert every.terms["trained"].bytes == scales * config["hidden_size"] * FLOAT32_BYTES
    assert final.terms["trained"].bytes == config["hidden_size"] * FLOAT32_BYTES
    assert final.train_memory_bytes < every.train_memory_bytes < full.train_memory_bytes


def test_a_forecast_refuses_it_by_name_and_says_what_would_fit(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama, **KNOBS_OF_A_TRIAL)
    needed = forecast(spec, None).device_memory_bytes
    assert forecast(spec, needed).refusal is None
    refusal = forecast(spec, needed - 1).refusal
    assert refusal is not None
    assert refusal.startswith(f"norm tuning of {tiny_llama} (none, batch_size 4, ")
    assert "batch_size: 2 with gradient_accumulation: 2" in refusal
    assert "offload" not in refusal  # its optimizer is small, and ZeRO is not allowed


def forecast(spec: TrialSpec, available: int | None) -> Forecast:
    found = simulating_forecaster(available, devices=2).of(spec)
    assert found is not None
    return found


def test_interrupted_over_and_over_it_has_the_same_curve(tiny_llama: Path, tmp_path: Path) -> None:
    spec = make_spec(
        tiny_llama,
        budget=BUDGET,
        batch_size=2,
        gradient_accumulation=2,
        gradient_checkpointing=True,
        **KNOBS_OF_A_TRIAL,
    )
    whole = run(spec, tmp_path / "whole")
    place = tmp_path / "0"
    for number, interruption in enumerate(INTERRUPTIONS[:3], start=1):
        place = interrupted(spec, place, interruption, found=tmp_path / str(number))
    assert_same_curve(to_its_end(spec, place), whole)


def test_a_trial_saves_what_it_trained_and_leaves_the_base_as_it_was(
    trained: RunFolder, tiny_llama: Path
) -> None:
    folder = the_trial(trained)
    (file,) = folder.adapter_folder.iterdir()
    weights = load_file(file)
    assert weights and all(name.endswith("norm.weight") for name in weights)
    own = dict(shared_base(folder.spec()).model.named_parameters())
    assert any(not torch.equal(weights[name], own[name]) for name in weights)
    assert not any(parameter.requires_grad for parameter in own.values())
    facts = (folder.summary() or {})["facts"]
    assert facts["trainable_parameters"] == sum(weight.numel() for weight in weights.values())
    assert facts["checkpoint_bytes"] == file.stat().st_size


def test_the_report_compares_it_with_the_other_method(trained: RunFolder) -> None:
    text = build_report(trained).markdown()
    methods = text.split("## Methods\n")[1].split("\n## ", maxsplit=1)[0]
    rows = [line for line in methods.splitlines() if " norms | 1 of 1 | " in line]
    assert len(rows) == 1 and the_trial(trained).trial_id in rows[0]
    labels = {item.label for item in read_trials(trained)}
    assert any(label.endswith(" none norms lr5.0e-02 b4x1") for label in labels)


def test_the_advised_lines_load_what_was_trained(trained: RunFolder) -> None:
    folder = the_trial(trained)
    lines = loading_lines(folder)
    assert "from safetensors.torch import load_file" in lines
    assert not [line for line in lines if "peft" in line]
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)  # our own text
    spec = folder.spec()
    method, base = spec.method, shared_base(spec).model
    prompt = torch.arange(20)[None]
    with torch.no_grad():
        untrained = base(prompt).logits
        loaded = method.load(base, folder.adapter_folder)
        expected = loaded(prompt).logits
        method.detach(loaded)
        assert torch.equal(names["model"](prompt).logits, expected)
    assert not torch.equal(expected, untrained)


def test_predict_asks_it_beside_its_base(trained: RunFolder) -> None:
    folder = the_trial(trained)
    base, own = asked_models([str(folder.path)])
    assert (base.kind, own.kind) == ("base", "norms")
    assert own.trained == folder.adapter_folder and base.folder is not None
    asked = [
        Asked(spec=each.spec, trained=each.trained, label=each.label, is_of_a_sweep=True, threads=1)
        for each in (base, own)
    ]
    found = dict(answers(asked, split="selection", questions=[0, 3], notify=lambda text: None))
    for number, each in enumerate((base, own)):
        assert each.folder is not None
        lines = each.folder.predictions_file().read_text().splitlines()
        noted = [json.loads(lines[at]) for at in (0, 3)]
        assert list(found[number].rows) == noted


def test_a_folder_without_its_file_is_refused(trained: RunFolder, tmp_path: Path) -> None:
    spec = the_trial(trained).spec()
    with pytest.raises(InputError, match=r"has no norms\.safetensors"):
        spec.method.load(shared_base(spec).model, tmp_path)
