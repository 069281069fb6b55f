"""Quantization: what of a model is quantized, what is refused, and checkpoints saved quantized."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.llama4.modeling_llama4 import Llama4Router

from tests.tiny_models import make_falcon, make_gpt2, make_gpt_neox, make_llama, make_mixtral
from tests.tiny_trials import make_spec, shared_base
from trainables.errors import InputError
from trainables.models.base import load_base
from trainables.models.on_meta import base_on_meta
from trainables.models.quantized import _is_plain, linear_weights
from trainables.simulation.depth import model_config
from trainables.simulation.fake_model import fill, stored_tensors
from trainables.spec.quantization import QUANTIZATIONS, stored_fault

QUANTIZED = [name for name, row in QUANTIZATIONS.items() if row.loader]


class Scaled(nn.Linear):
    """Has torch's constructor and computes something else."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize("quantization", QUANTIZED)
@pytest.mark.parametrize("make", [make_llama, make_gpt_neox, make_gpt2, make_falcon])
def test_all_linear_weights_are_quantized_as_a_simulation_has_it(
    make: Callable[[Path], Path], quantization: str, tmp_path: Path
) -> None:
    """Falcon's layers are of a subclass, which transformers alone leaves as they are."""
    spec = make_spec(make(tmp_path), quantization=quantization)
    base = load_base(spec, device="cpu")
    weights = linear_weights(base.model)
    assert weights
    assert all(weight.is_quantized for weight in weights)
    assert base.weight_bytes < load_base(make_spec(tmp_path), device="cpu").weight_bytes
    fake = base_on_meta(
        model_config(json.loads((tmp_path / "config.json").read_text())), spec.knobs
    )
    assert [(one.name, one.count) for one in linear_weights(fake)] == [
        (one.name, one.count) for one in weights
    ]
    with FakeTensorMode():
        fill(fake)
        stored = {tensor.untyped_storage()._cdata: tensor.nbytes for tensor in stored_tensors(fake)}
    assert sum(stored.values()) == pytest.approx(base.weight_bytes, abs=64)


@pytest.mark.parametrize("quantization", QUANTIZED)
def test_a_base_whose_experts_stay_as_they_are_is_not_called_quantized(
    quantization: str, tmp_path: Path
) -> None:
    spec = make_spec(make_mixtral(tmp_path), quantization=quantization)
    told = rf"{quantization} of .* would quantize 11\.1% .*experts\.gate_up_proj.*exclude: \[{{"
    with pytest.raises(InputError, match=told):
        load_base(spec, device="cpu")
    config = model_config(json.loads((tmp_path / "config.json").read_text()))
    with pytest.raises(InputError, match=told):
        base_on_meta(config, spec.knobs)
    assert load_base(make_spec(tmp_path), device="cpu").weight_bytes > 0


def test_embeddings_and_the_head_are_no_linear_weights(tiny_llama: Path, tmp_path: Path) -> None:
    names = {weight.name for weight in linear_weights(shared_base(make_spec(tiny_llama)).model)}
    assert len(names) == 2 * 7
    tied = load_base(make_spec(make_llama(tmp_path, tied=True)), device="cpu")
    assert {weight.name for weight in linear_weights(tied.model)} == names


def test_a_subclass_is_linear_if_it_adds_nothing_and_computes_the_same() -> None:
    before = torch.get_rng_state()
    assert _is_plain(FalconLinear)
    assert _is_plain(nn.Linear)
    assert not _is_plain(Scaled)
    assert not _is_plain(Llama4Router)  # has a constructor of its own
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("quantization", QUANTIZED)
def test_a_checkpoint_that_is_saved_quantized_is_one_row_only(
    quantization: str, double: bool, tiny_llama: Path, tmp_path: Path
) -> None:
    double = double and QUANTIZATIONS[quantization].has_double_quantization
    spec = make_spec(tiny_llama, quantization=quantization, double_quantization=double)
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    shared_base(spec).model.save_pretrained(folder)
    own = make_spec(folder, quantization=quantization, double_quantization=double)
    loaded = load_base(own, device="cpu")
    assert loaded.weight_bytes == shared_base(spec).weight_bytes
    for other in set(QUANTIZATIONS) - {quantization}:
        with pytest.raises(InputError, match=rf"is saved quantized \({quantization}\)"):
            load_base(make_spec(folder, quantization=other), device="cpu")
    if QUANTIZATIONS[quantization].has_double_quantization:
        wrong = make_spec(folder, quantization=quantization, double_quantization=not double)
        with pytest.raises(InputError, match="is saved quantized"):
            load_base(wrong, device="cpu")


def test_a_saved_quantization_computes_in_the_dtype_of_the_trial(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from bitsandbytes.nn import Linear4bit

    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    shared_base(make_spec(tiny_llama, quantization="nf4")).model.save_pretrained(folder)
    spec = make_spec(folder, quantization="nf4", compute_dtype="bfloat16")
    layers = [m for m in load_base(spec, device="cpu").model.modules() if isinstance(m, Linear4bit)]
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}


def test_a_checkpoint_that_says_it_is_quantized_and_is_not_is_refused(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"int8 of .* would quantize 0\.0%"):
        load_base(make_spec(folder, quantization="int8"), device="cpu")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "saved quantized by gptq"),
        ({"quant_method": "awq"}, "saved quantized by awq"),
        ({"quant_method": "fp8"}, "saved quantized by fp8"),
        ({"bits": 4}, "does not name"),
    ],
)
def test_a_format_without_a_row_is_refused_under_every_row(
    stored: dict[str, Any], told: str, quantization: str
) -> None:
    knobs = {"model": "m", "quantization": quantization}
    assert told in str(stored_fault({"quantization_config": stored}, knobs))
    assert told in str(stored_fault({"text_config": {"quantization_config": stored}}, knobs))


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_a_checkpoint_that_is_not_quantized_may_be_any_row(config: dict[str, Any]) -> None:
    for quantization in QUANTIZATIONS:
        assert stored_fault(config, {"model": "m", "quantization": quantization}) is None
