"""Weights that are not those of their architecture are refused by name, from headers alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import make_falcon, make_gpt2, make_gpt_neox, make_llama, make_mixtral
from tests.tiny_trials import make_spec, shared_base
from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.weights import Full
from trainables.models import architectures
from trainables.models.base import load_base
from trainables.models.model_folder import check_model_folder
from trainables.models.weight_faults import holds_tensors, weight_faults

State = dict[str, torch.Tensor]
MAKERS = (make_llama, make_gpt_neox, make_gpt2, make_mixtral, make_falcon)


@pytest.fixture
def model(tiny_llama: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llama, tmp_path / "model")


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_what_transformers_saves_has_no_faults_in_one_file_or_in_shards(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Also where weights are merged at loading (experts) or tied."""
    from transformers import AutoModelForCausalLM

    folder = make(tmp_path / "whole")
    assert weight_faults(folder) == []
    sharded = shutil.copytree(folder, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(sharded, max_shard_size="30KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert weight_faults(sharded) == []
    shard = sorted(sharded.glob("*.safetensors"))[0]
    shard.unlink()
    assert shard.name in only(weight_faults(sharded))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_missing_block_is_named(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path)
    block = re.compile(r"(layers|h)\.1\.")
    change_weights(folder, lambda s: {n: t for n, t in s.items() if not block.search(n)})
    assert re.search(r"lacks .*(layers|h)\.1\.", only(weight_faults(folder)))
    with pytest.raises(InputError, match=r"lacks .*would be random"):
        load_base(make_spec(folder), device="cpu")


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_prefixed_superfluous_and_reshaped_weights_are_named(
    quantization: str, model: Path
) -> None:
    """transformers itself checks no shape of a weight that is quantized."""
    whole = load_file(model / "model.safetensors")
    up = "model.layers.0.mlp.up_proj.weight"
    for told, changed in {
        r"lacks 21 .* random: lm_head.weight": {f"base.{n}": t for n, t in whole.items()},
        r"holds 1 weight that .* does not have: score.weight": whole
        | {"score.weight": torch.ones(2, 32)},
        rf"another shape .*{up} \(32 x 32 instead of 64 x 32\)": whole | {up: torch.ones(32, 32)},
    }.items():
        save_file(changed, model / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=told):
            load_base(make_spec(model, quantization=quantization), device="cpu")


def test_masks_of_older_versions_are_no_faults(tmp_path: Path) -> None:
    folder = make_gpt_neox(tmp_path)
    name = "gpt_neox.layers.0.attention"
    more = {
        f"{name}.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        f"{name}.masked_bias": torch.tensor(-1e9),
        f"{name}.rotary_emb.inv_freq": torch.ones(4),
    }
    change_weights(folder, lambda state: state | more)
    assert weight_faults(folder) == []


def test_a_pointer_and_a_cut_file_are_told_apart_from_weights(model: Path) -> None:
    file = model / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged or cut off" in only(weight_faults(model))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in only(weight_faults(model))
    assert holds_tensors(model)
    with pytest.raises(InputError, match="Git LFS"):
        load_base(make_spec(model), device="cpu")


def test_a_folder_without_weights_is_told_from_one_with_wrong_ones(model: Path) -> None:
    assert holds_tensors(model)
    save_file({}, model / "model.safetensors")
    assert not holds_tensors(model)
    assert "has no weights" in only(weight_faults(model))
    (model / "model.safetensors").rename(model / "other.safetensors")
    assert "no model.safetensors" in only(weight_faults(model))
    (model / "other.safetensors").unlink()
    assert not holds_tensors(model)


def test_pickles_are_compared_too_where_they_are_allowed(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    torch.save(weights, model / "pytorch_model.bin")
    assert weight_faults(model, allow_bin=True) == []
    del weights["model.norm.weight"]
    torch.save(weights, model / "pytorch_model.bin")
    assert "model.norm.weight" in only(weight_faults(model, allow_bin=True))
    assert "has no model.safetensors" in only(weight_faults(model))


@pytest.mark.parametrize("quantization", ["int8", "nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
def test_a_quantized_checkpoint_is_compared_by_the_weights_that_it_stands_for(
    quantization: str, double: bool, tiny_llama: Path, tmp_path: Path
) -> None:
    spec = make_spec(tiny_llama, quantization=quantization, double_quantization=double)
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    shared_base(spec).model.save_pretrained(folder)
    assert "quantization_config" in json.loads((folder / "config.json").read_text())
    assert weight_faults(folder) == []
    change_weights(folder, lambda state: {n: t for n, t in state.items() if ".1.mlp" not in n})
    assert "layers.1.mlp.down_proj.weight" in only(weight_faults(folder))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder-decoder"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "both directions"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"model_type": "own"}, "no causal language model"),
        ({"model_type": None}, "no model_type"),
    ],
)
def test_an_architecture_that_continues_no_text_is_refused_before_it_is_loaded(
    changed: dict[str, Any], told: str, model: Path
) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changed))
    assert told in only(weight_faults(model))
    with pytest.raises(InputError, match=told) as raised:
        check_model_folder(model)
    assert len(str(raised.value)) < 400  # not the names of all that transformers has


def test_the_tables_are_those_of_transformers() -> None:
    from transformers.models.auto import modeling_auto, tokenization_auto

    tables = architectures._tables()
    assert tables["MODEL_FOR_CAUSAL_LM"] == modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    assert tables["MODEL_FOR_MASKED_LM"] == modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    bodies = set(modeling_auto.MODEL_MAPPING_NAMES.values())
    assert {name for name in bodies if isinstance(name, str)} <= set(tables["MODEL"].values())
    classes = {name for name in tokenization_auto.TOKENIZER_MAPPING_NAMES.values() if name}
    assert all(map(architectures.is_tokenizer, classes))
    assert not architectures.is_tokenizer("OwnTokenizer")


def test_a_saved_model_that_lacks_a_weight_is_not_loaded(tiny_llama: Path, tmp_path: Path) -> None:
    base = shared_base(make_spec(tiny_llama)).model
    model = Full().attach(base, seed=0)
    Full().save(model, tmp_path)
    Full().detach(model)
    Full().detach(Full().load(base, tmp_path))
    change_weights(tmp_path, lambda state: {n: t for n, t in state.items() if "lm_head" not in n})
    with pytest.raises(InputError, match=r"lacks 1 weight of .*lm_head\.weight"):
        Full().load(base, tmp_path)


def test_a_saved_adapter_that_lacks_a_module_is_not_loaded(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = shared_base(make_spec(tiny_llama)).model
    names = [name for name, _ in base.named_modules()]
    model = LoRA().attach(base, seed=0)
    LoRA().save(model, tmp_path)
    LoRA().detach(model)
    file = tmp_path / "adapter_model.safetensors"
    kept = {n: t for n, t in load_file(file).items() if ".1.mlp.up_proj" not in n}
    save_file({**kept, "own.weight": torch.ones(1)}, file)
    with pytest.raises(InputError, match=r"lacks 2 .*up_proj") as raised:
        LoRA().load(base, tmp_path)
    assert "own.weight" in raised.value.messages[1]
    assert [name for name, _ in base.named_modules()] == names


def change_weights(folder: Path, change: Callable[[State], State]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def only(faults: list[str]) -> str:
    assert len(faults) == 1
    return faults[0]
