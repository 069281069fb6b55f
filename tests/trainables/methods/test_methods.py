"""Methods: what each adds to a base, and that it can be removed again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_trials import make_spec, shared_base
from trainables.errors import InputError
from trainables.methods.adapters import LoRA
from trainables.methods.method import Untrained
from trainables.methods.registry import make_method


def test_the_knobs_make_the_method_they_name() -> None:
    knobs = {
        "method": "lora",
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.1,
        "target_modules": ["q_proj"],
    }
    assert make_method(knobs) == LoRA(rank=4, alpha=8.0, dropout=0.1, target_modules=("q_proj",))
    assert make_method({"method": "untrained"}) == Untrained()


def test_lora_trains_all_linear_layers_but_the_head(tiny_llama: Path) -> None:
    model = _attached(tiny_llama, LoRA(rank=4))
    names = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    expected = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert names == expected
    LoRA().detach(model)


def test_lora_can_be_kept_to_named_modules(tiny_llama: Path) -> None:
    model = _attached(tiny_llama, LoRA(rank=4, target_modules=("q_proj", "v_proj")))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * 2  # layers, modules, A and B
    LoRA().detach(model)


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (("q_proj", "v_porj"), "no layer v_porj. It has down_proj, gate_proj, k_proj, "),
        (("no", "nor"), "no layer no, nor. It has"),
        (("mlp",), "no layer mlp"),  # a block, and no layer that can be adapted
        ("q_proj", "'q_proj' alone is a pattern .* Give a list of names, as \\[q_proj\\]"),
    ],
)
def test_a_name_of_no_layer_is_refused_with_those_there_are(
    targets: str | tuple[str, ...], told: str, tiny_llama: Path
) -> None:
    base = shared_base(make_spec(tiny_llama)).model
    names = [name for name, _ in base.named_modules()]
    [fault] = LoRA(target_modules=targets).faults(base)
    assert "lm_head" not in fault.partition("It has")[2]
    with pytest.raises(InputError, match=told):
        LoRA(target_modules=targets).attach(base, seed=0)
    assert [name for name, _ in base.named_modules()] == names


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*\.(q|v)_proj", ("layers.0.mlp.up_proj", "lm_head")]
)
def test_a_target_that_matches_is_no_fault(
    targets: str | tuple[str, ...], tiny_llama: Path
) -> None:
    assert LoRA(target_modules=targets).faults(shared_base(make_spec(tiny_llama)).model) == []


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_gives_the_same_initial_parameters(seed: int, tiny_llama: Path) -> None:
    first, again = (_initial(tiny_llama, seed) for _ in range(2))
    other = _initial(tiny_llama, seed + 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_detach_leaves_a_base_that_can_be_attached_to_again(tiny_llama: Path) -> None:
    base = shared_base(make_spec(tiny_llama)).model
    names = [name for name, _ in base.named_modules()]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(2):
            LoRA().detach(LoRA().attach(base, seed=0))
    assert not [w for w in warned if "second time" in str(w.message)]
    assert [name for name, _ in base.named_modules()] == names


def test_an_adapter_that_is_a_pickle_is_not_loaded(tiny_llama: Path, tmp_path: Path) -> None:
    base = shared_base(make_spec(tiny_llama)).model
    model = LoRA(rank=2).attach(base, seed=0)
    LoRA().save(model, tmp_path)
    LoRA().detach(model)
    LoRA().detach(LoRA().load(base, tmp_path))
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        LoRA().load(base, tmp_path)


def _attached(folder: Path, method: LoRA) -> Any:
    return method.attach(shared_base(make_spec(folder)).model, seed=0)


def _initial(folder: Path, seed: int) -> torch.Tensor:
    model = LoRA().attach(shared_base(make_spec(folder)).model, seed=seed)
    trained = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    LoRA().detach(model)
    return torch.cat(trained)
