"""Bases: loaded frozen, from safetensors only; other folders are refused with a reason."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny_models import make_tokenizer
from tests.tiny_trials import make_spec, shared_base
from trainables.errors import InputError
from trainables.models import base as models
from trainables.models import device, tensors
from trainables.models.hub import resolve_revision
from trainables.models.model_folder import check_model_folder, model_digest


def test_a_base_is_frozen_in_evaluation_mode_and_generates_greedily(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    assert not base.model.training
    assert base.model.generation_config.do_sample is False
    assert base.end_tokens == (1,)
    stored = [*base.model.parameters(), *base.model.buffers()]
    assert base.weight_bytes == sum(tensor.nbytes for tensor in stored)


def test_a_four_bit_base_takes_less_memory_and_never_repacks_its_weights(tiny_llama: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    base = shared_base(make_spec(tiny_llama, quantization="nf4"))
    layers = [module for module in base.model.modules() if isinstance(module, Linear4bit)]
    assert len(layers) == 14
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert base.weight_bytes < shared_base(make_spec(tiny_llama)).weight_bytes


def test_double_quantization_stores_smaller_scales(tiny_llama: Path) -> None:
    single = shared_base(make_spec(tiny_llama, quantization="nf4"))
    double = shared_base(make_spec(tiny_llama, quantization="nf4", double_quantization=True))
    scales = [_bytes(base, "absmax") for base in (double, single)]
    assert scales[0] < scales[1]
    assert single.key != double.key


def test_the_tokens_that_end_a_line_are_those_whose_text_has_a_newline(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama))
    newline = base.tokenizer("\n", add_special_tokens=False)["input_ids"]
    assert base.line_ends.nonzero().flatten().tolist() == newline
    assert base.blanks[newline].all()
    assert not base.blanks[base.tokenizer("5", add_special_tokens=False)["input_ids"]].any()


def test_an_end_token_stands_in_for_a_missing_padding_token(
    tiny_llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert models.load_base(make_spec(folder), device="cpu").pad_token == tokenizer.eos_token_id
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="neither a padding nor an end token"):
        models.load_base(make_spec(folder), device="cpu")


def test_auto_is_float32_on_a_cpu_and_a_named_dtype_stays() -> None:
    assert device.resolve_compute_dtype("auto", "cpu") == "float32"
    assert device.resolve_compute_dtype("float16", "cpu") == "float16"


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_auto_on_a_gpu_follows_its_capability(
    capability: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert device.resolve_compute_dtype("auto", "cuda:0") == dtype


def test_a_device_is_described_with_what_a_result_depends_on() -> None:
    described = device.describe_device()
    assert described["device_type"] in ("cpu", "cuda")
    assert int(described["device_memory_bytes"]) > 1 << 28
    assert described["torch_version"] == torch.__version__
    assert {"transformers_version", "peft_version", "bitsandbytes_version"} <= set(described)


def test_a_model_has_the_same_digest_wherever_it_lies_and_another_if_it_changes(
    tiny_llama: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tiny_llama, tmp_path / "copy")
    (copy / "README.md").write_text("About this model.")
    assert model_digest(copy) == model_digest(tiny_llama)
    changed = (copy / "config.json").read_text() + " "
    (copy / "config.json").write_text(changed)
    assert model_digest(copy) != model_digest(tiny_llama)
    (copy / "config.json").write_text(changed[:-1])
    assert model_digest(copy) == model_digest(tiny_llama)


def test_all_that_a_folder_lacks_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        check_model_folder(tmp_path)
    told = " ".join(raised.value.messages)
    assert len(raised.value.messages) == 3
    assert all(part in told for part in ("config.json", "safetensors", "tokenizer"))


def test_weights_as_pickles_only_are_refused_as_such(tiny_llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="only as pickles"):
        check_model_folder(folder)


def test_a_base_that_holds_an_adapter_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """transformers would load it into the base, from a pickle if need be."""
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds an adapter .* Move it elsewhere"):
        check_model_folder(folder)


@pytest.mark.parametrize("what", ["missing", "file"])
def test_what_is_no_folder_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"does not exist|is a file"):
        check_model_folder(tmp_path / what)


@pytest.mark.parametrize("hub_id", ["no-such-model", "no-such-owner/no-such-model"])
def test_what_is_no_absolute_folder_is_asked_of_the_hub(
    hub_id: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = replace(make_spec(tiny_llama), model_source=hub_id, revision="main")
    with pytest.raises(InputError, match=f"{hub_id} at main is not.* HF_HUB_OFFLINE is set"):
        models.load_base(spec, device="cpu")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_llama, tmp_path / hub_id)
    with pytest.raises(InputError, match="would be loaded in its place"):
        models.load_base(spec, device="cpu")


def test_the_source_counts_and_not_the_knob(tiny_llama: Path) -> None:
    spec = make_spec(tiny_llama)
    elsewhere = replace(spec, knobs={**spec.knobs, "model": "no-such/model"})
    assert models.load_base(elsewhere, device="cpu").key == spec.base_key
    unnamed = replace(spec, model_source="")
    assert models.load_base(unnamed, device="cpu").key == spec.base_key


def test_a_hub_that_is_out_of_reach_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="Give a local folder"):
        resolve_revision("no-such-owner/no-such-model")


def _bytes(base: models.Base, part: str) -> int:
    stored = tensors.stored_tensors(base.model)
    return sum(tensor.nbytes for name, tensor in stored if name.endswith(part))
