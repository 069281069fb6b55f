"""The planner: which configurations are the same trial, and which cannot run."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SchedulerConfig, SweepConfig, rungs
from orchestrator.planning.planner import Planner
from orchestrator.planning.sources import is_hub_id, resolve_path
from tests.orchestrator import tiny_sweep
from trainables.errors import InputError
from trainables.spec.knobs import KNOBS
from trainables.spec.rows.decoding_knobs import DECODING_ROWS
from trainables.spec.rows.shot_knobs import SHOT_ROWS


def config(*, model: str = "a-model", **space: Any) -> SweepConfig:
    value = tiny_sweep.mapping(model)
    value["space"] |= space
    return from_mapping(value)


def one(model: str = "a-model", **knobs: Any) -> dict[str, Any]:
    return {"model": model, "prompt": "statements", "sequence_length": 256, **knobs}


def test_equal_configurations_give_equal_ids_and_others_others() -> None:
    planner = tiny_sweep.planner(config())
    first = planner.spec(one(rank=4))
    assert planner.spec(one(rank=4, quantization="none")).trial_id == first.trial_id
    assert planner.spec(one(rank=8)).trial_id != first.trial_id


def test_the_dtype_is_resolved_before_the_id_is_made() -> None:
    on_cpu = tiny_sweep.planner(config())
    on_gpu = tiny_sweep.planner(config(), device_type="cuda", compute_dtype="bfloat16")
    assert on_cpu.spec(one()).knobs["compute_dtype"] == "float32"
    assert on_cpu.spec(one()).trial_id == on_cpu.spec(one(compute_dtype="float32")).trial_id
    assert on_cpu.spec(one()).trial_id != on_gpu.spec(one()).trial_id


def test_a_model_is_its_content_wherever_it_lies(base_models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(base_models / "small", copy)
    ids = {
        str(folder): tiny_sweep.planner(config()).spec(one(str(folder))).trial_id
        for folder in (base_models / "small", copy)
    }
    assert len(set(ids.values())) == 1
    with (copy / "config.json").open("a") as file:
        file.write("\n")
    assert tiny_sweep.planner(config()).spec(one(str(copy))).trial_id not in ids.values()


def test_a_baseline_is_the_same_for_all_trials_of_its_base() -> None:
    planner = tiny_sweep.planner(config())
    baseline = planner.baseline(one(rank=4, batch_size=2))
    assert baseline.role == "baseline"
    assert planner.baseline(one(rank=8, learning_rate=0.5)) == baseline
    assert planner.baseline(one(quantization="nf4")).trial_id != baseline.trial_id
    assert planner.baseline(one(prompt="short")).trial_id != baseline.trial_id


def test_a_baseline_sees_as_much_context_as_any_trial_may() -> None:
    planner = tiny_sweep.planner(config(sequence_length={"integers": [64, 160]}))
    baselines = [planner.baseline(one(sequence_length=length)) for length in (64, 100, 160)]
    assert {spec.knobs["sequence_length"] for spec in baselines} == {160}
    assert len([*planner.cell_configurations()]) == len({"none", "nf4"})


def test_a_program_is_asked_for_by_the_program_prompt_and_has_room() -> None:
    planner = tiny_sweep.planner(config(prompt="default"))
    spec = planner.spec({**one(prompt="default"), "target": "program"})
    assert spec.knobs["prompt"] == "program"


def test_a_knob_among_the_data_is_refused() -> None:
    settings = from_mapping(
        tiny_sweep.mapping(data={"generated": tiny_sweep.GENERATED, "prompt": "short"})
    )
    with pytest.raises(InputError, match=r"data\.prompt: .* space\.prompt"):
        Planner(settings).prepare()


def test_contents_name_models_data_and_prompts() -> None:
    planner = tiny_sweep.planner(config())
    planner.prepare()
    names = {name.partition(" ")[0] for name in planner.contents()}
    assert names == {"model", "data", "prompt"}


def test_each_base_of_the_space_has_one_baseline() -> None:
    planner = tiny_sweep.planner(config(quantization=["none", "int8", "nf4"], rank=[2, 4, 8]))
    baselines = [planner.baseline(each) for each in planner.cell_configurations()]
    assert len({baseline.trial_id for baseline in baselines}) == 3


def test_other_data_make_another_trial() -> None:
    other = tiny_sweep.mapping(data={"generated": {**tiny_sweep.GENERATED, "seed": 6}})
    planners = [tiny_sweep.planner(each) for each in (config(), from_mapping(other))]
    assert len({planner.spec(one()).trial_id for planner in planners}) == 2


def test_all_that_is_wrong_with_models_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    names = [str(tmp_path / "empty"), str(tmp_path / "absent")]
    with pytest.raises(InputError) as refused:
        Planner(config(model=names, quantization=["none", "nf4"]), device=tiny_sweep.CPU).prepare()  # type: ignore[arg-type]
    told = "\n".join(refused.value.messages)
    assert "absent does not exist" in told
    assert "empty has no config.json" in told
    assert len(set(refused.value.messages)) == len(refused.value.messages)


def test_a_plan_needs_no_weights(base_models: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_models / "small" / name, tmp_path)
    given: dict[str, Any] = {"config": config(model=str(tmp_path)), "device": dict(tiny_sweep.CPU)}
    planner = Planner(**given)
    planner.prepare(ask_the_hub=False)
    assert not planner.models[str(tmp_path)].has_weights
    for needed in ("config.json", "tokenizer.json"):
        kept = (tmp_path / needed).read_bytes()
        (tmp_path / needed).unlink()
        with pytest.raises(InputError, match=needed.removesuffix(".json")):
            Planner(**given).prepare(ask_the_hub=False)
        (tmp_path / needed).write_bytes(kept)
    with pytest.raises(InputError, match=r"has no \*\.safetensors"):
        Planner(**given).prepare()


def test_a_paged_optimizer_needs_a_gpu() -> None:
    on_cpu = tiny_sweep.planner(config())
    spec = on_cpu.spec(one(optimizer="paged_adamw_8bit"))
    assert "Use adamw" in str(on_cpu.rejection(spec))
    assert on_cpu.rejection(on_cpu.spec(one())) is None
    on_gpu = tiny_sweep.planner(config(), device_type="cuda", bfloat16=True)
    assert on_gpu.rejection(spec) is None


def test_bfloat16_needs_a_gpu_that_has_it() -> None:
    old = tiny_sweep.planner(config(), device_type="cuda", device="Tesla T4")
    spec = old.spec(one(compute_dtype="bfloat16"))
    assert old.rejection(spec) == "Tesla T4 has no bfloat16. Use compute_dtype: auto."


@given(grace=st.floats(0.001, 0.999), reduction=st.floats(1.05, 10))
def test_rungs_rise_by_the_reduction_to_the_whole_budget(grace: float, reduction: float) -> None:
    taken = rungs(SchedulerConfig(grace=grace, reduction=reduction))
    assert taken[0] == pytest.approx(grace)
    assert taken[-1] == 1.0
    assert list(taken) == sorted(set(taken))
    for lower, higher in itertools.pairwise(taken[:-1]):
        assert higher / lower == pytest.approx(reduction)


def test_rungs_as_documented() -> None:
    assert rungs(SchedulerConfig()) == (0.0625, 0.25, 1.0)
    assert rungs(SchedulerConfig(kind="none")) == (1.0,)


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("meta-llama/Llama-3.2-1B", True),
        ("base_models/small", False),  # there is such a folder
        ("./owner/name", False),
        ("/owner/name", False),
        ("~/name", False),
        ("gpt2", True),
        ("a/b/c", False),
    ],
)
def test_a_hub_id_is_told_from_a_folder(name: str, hub: bool) -> None:
    assert is_hub_id(name) == hub


def test_a_named_prompt_stays_a_name_and_a_file_becomes_a_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("{question}")
    assert resolve_path("statements") == "statements"
    assert resolve_path(str(file)) == str(file)
    assert resolve_path("absent/mine.txt") == "absent/mine.txt"


def test_a_pair_that_no_machine_can_run_is_rejected_with_its_reason() -> None:
    planner = tiny_sweep.planner(config())
    for quantization in ("int8", "nf4", "fp4"):
        spec = planner.spec({**one(), "method": "full", "quantization": quantization})
        reason = planner.rejection(spec)
        assert reason is not None and f"{quantization} weights are codes" in reason
    split = {**one(), "quantization": "nf4", "zero_stage": 3, "workers": 2}
    assert "zero_stage 3 splits every weight" in str(planner.rejection(planner.spec(split)))
    assert planner.rejection(planner.spec({**one(), "method": "full"})) is None


def saved_as(folder: Path, base_models: Path, **stored: Any) -> str:
    """A copy of the small model whose configuration says that it is saved quantized."""
    shutil.copytree(base_models / "small", folder)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": stored}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_of_a_model_that_is_saved_quantized_the_other_rows_are_rejected(
    base_models: Path, tmp_path: Path
) -> None:
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    model = saved_as(tmp_path / "nf4", base_models, **stored)
    rows = ["none", "int8", "nf4", "fp4"]
    planner = Planner(config(model=model, quantization=rows), device=dict(tiny_sweep.CPU))
    planner.prepare()
    rejected = {row: planner.rejection(planner.spec(one(model, quantization=row))) for row in rows}
    assert [row for row, reason in rejected.items() if reason is None] == ["nf4"]
    assert "saved quantized (nf4)" in str(rejected["none"])
    baselines = [planner.baseline(one(model, quantization=row)) for row in rows]
    assert [planner.rejection(each) is None for each in baselines] == [False, False, True, False]


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"load_in_8bit": True}, "Use quantization: int8"),
        (
            {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            "Use quantization: fp4, double_quantization: true",
        ),
        ({"quant_method": "gptq"}, "saved quantized by gptq"),
    ],
)
def test_a_space_with_no_row_that_a_model_is_saved_as_is_refused(
    stored: dict[str, Any], told: str, base_models: Path, tmp_path: Path
) -> None:
    model = saved_as(tmp_path / "saved", base_models, **stored)
    with pytest.raises(InputError, match=told) as raised:
        Planner(config(model=model, quantization=["none", "nf4"])).prepare()
    assert len(raised.value.messages) == 1


def test_specs_carry_every_knob_that_is_read() -> None:
    spec = tiny_sweep.planner(config()).spec(one())
    written = {name for name, knob in KNOBS.items() if not knob.unsaid}
    of_others = {"double_quantization", "effective_batch_size", *SHOT_ROWS, *DECODING_ROWS}
    assert set(spec.knobs) == written - of_others


def test_dropping_what_is_too_long_is_another_trial_and_refusing_it_is_not() -> None:
    ids = [
        tiny_sweep.planner(from_mapping(tiny_sweep.mapping(data=data))).spec(one()).trial_id
        for data in (
            {"generated": tiny_sweep.GENERATED},
            {"generated": tiny_sweep.GENERATED, "too_long": "refuse"},
            {"generated": tiny_sweep.GENERATED, "too_long": "drop"},
        )
    ]
    assert ids[0] == ids[1] != ids[2]


def test_what_to_do_with_too_long_examples_is_one_of_two_ways() -> None:
    data = {"generated": {**tiny_sweep.GENERATED, "seed": "x"}, "too_long": "cut"}
    planner = tiny_sweep.planner(from_mapping(tiny_sweep.mapping(data=data)))
    with pytest.raises(InputError) as refused:
        planner.prepare()
    told = "\n".join(refused.value.messages)
    assert "data.too_long: got 'cut'" in told and "data.generated.seed" in told
