"""Biases and the last blocks: which of a base's parameters are trained, saved and given back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import make_llama
from tests.tiny_trials import make_spec, shared_base
from trainables.errors import InputError
from trainables.methods.parts import Bias, Partial, Parts

LAST = [
    f"model.layers.1.{name}.weight"
    for name in (
        *(f"self_attn.{place}_proj" for place in "qkvo"),
        *(f"mlp.{place}_proj" for place in ("gate", "up", "down")),
        "input_layernorm",
        "post_attention_layernorm",
    )
]
NORM, HEAD = "model.norm.weight", "lm_head.weight"


def test_biases_are_trained_where_the_base_has_them(tiny_gpt_neox: Path) -> None:
    base = _base(tiny_gpt_neox)
    names = _trained(Bias(), base)
    assert names and all(name.endswith(".bias") for name in names)
    assert Bias().trained_part(base) == "biases"


def test_without_biases_the_scales_of_norms_are_and_that_is_said(tiny_llama: Path) -> None:
    base = _base(tiny_llama)
    assert NORM in _trained(Bias(), base)
    assert all("norm" in name for name in _trained(Bias(), base))
    assert "no biases" in Bias().trained_part(base)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Partial(blocks=1), [*LAST, NORM]),
        (Partial(blocks=1, train_final_norm=False), LAST),
        (Partial(blocks=1, train_head=True), [*LAST, NORM, HEAD]),
    ],
)
def test_the_last_blocks_are_trained_with_norm_and_head_as_asked(
    method: Partial, expected: list[str], tiny_llama: Path
) -> None:
    assert _trained(method, _base(tiny_llama)) == expected


def test_a_head_that_is_tied_is_trained_with_the_embeddings(tmp_path: Path) -> None:
    base = _base(make_llama(tmp_path, tied=True))
    method = Partial(blocks=1, train_head=True)
    model = method.attach(base, seed=0)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.get_input_embeddings().weight.requires_grad
    method.detach(model)
    assert not base.get_input_embeddings().weight.requires_grad


def _tiny(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).requires_grad_(False)


def _bloom() -> Any:
    from transformers import BloomConfig

    return _tiny(BloomConfig(hidden_size=16, n_layer=3, n_head=2, vocab_size=64))


def _gpt2() -> Any:
    from transformers import GPT2Config

    return _tiny(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=64, n_positions=32))


def test_the_norm_of_embeddings_is_not_the_final_one() -> None:
    names = _trained(Partial(blocks=1), _bloom())
    assert {name for name in names if ".h." not in name} == {
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
    }


@pytest.mark.parametrize("make", [_bloom, _gpt2])
@pytest.mark.parametrize("method", [Bias(), Partial(blocks=1, train_head=True)])
def test_a_base_in_16_bits_with_norms_of_torch_is_trained(make: Any, method: Parts) -> None:
    base = make().to(torch.bfloat16)
    before = dict(base.named_parameters())
    model = method.attach(base, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=torch.arange(8)[None]).logits.float().sum().backward()
    trained = [value for value in model.parameters() if value.requires_grad]
    assert trained and all(value.grad is not None for value in trained)
    method.detach(model)
    assert all(value is before[name] for name, value in base.named_parameters())
    assert {value.dtype for value in base.parameters()} == {torch.bfloat16}


def test_biases_of_quantized_layers_are_refused(tiny_gpt_neox: Path, tiny_llama: Path) -> None:
    quantized = shared_base(make_spec(tiny_gpt_neox, quantization="nf4")).model
    [fault] = Bias().faults(quantized)
    assert "round them to the compute dtype" in fault
    assert Bias().faults(shared_base(make_spec(tiny_llama, quantization="nf4")).model) == []


def test_more_blocks_than_there_are_are_refused(tiny_llama: Path) -> None:
    with pytest.raises(InputError, match=r"blocks: got 3; this model has 2\. Use at most 2"):
        Partial(blocks=3).attach(_base(tiny_llama), seed=0)


@pytest.mark.parametrize("method", [Bias(), Partial(blocks=1)])
def test_a_file_of_another_choice_or_none_is_refused(
    method: Parts, tiny_llama: Path, tmp_path: Path
) -> None:
    base = _base(tiny_llama)
    with pytest.raises(InputError, match=r"has no parameters\.safetensors"):
        method.load(base, tmp_path)
    other = Partial(blocks=2)
    other.save(model := other.attach(base, seed=0), tmp_path)
    other.detach(model)
    with pytest.raises(InputError, match="that its architecture does not have"):
        method.load(base, tmp_path)


def test_what_is_trained_is_float32_and_the_base_keeps_its_own(tiny_llama: Path) -> None:
    base = copy.deepcopy(_base(tiny_llama)).to(torch.bfloat16)
    before = dict(base.named_parameters())
    model = Partial(blocks=1).attach(base, seed=0)
    kinds = {(p.requires_grad, p.dtype) for p in model.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    Partial(blocks=1).detach(model)
    assert all(value is before[name] for name, value in base.named_parameters())


def _trained(method: Parts, base: Any) -> list[str]:
    model = method.attach(base, seed=0)
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    method.detach(model)
    return names


def _base(folder: Path) -> Any:
    return shared_base(make_spec(folder)).model
