"""The shipped model configurations, against the parameter counts that the hub shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.known_models import POPULAR, VARIANTS, popular_config
from orchestrator.planning.model_config import model_config

PARAMETERS = {  # of the safetensors on each model's page
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "meta-llama/Meta-Llama-3-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
}


def parameters(config: Mapping[str, Any]) -> int:
    """Embeddings, blocks of attention and a gated MLP with two norms each, the last norm, head."""
    hidden, between = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    block = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * between + 2 * hidden
    if config["model_type"] == "qwen2":  # its queries, keys and values have a bias
        block += queries + 2 * keys
    embeddings = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    return int(embeddings + config["num_hidden_layers"] * block + hidden)


@pytest.mark.parametrize("name", POPULAR)
def test_each_has_the_parameters_of_its_model(name: str) -> None:
    assert parameters(POPULAR[name]) == PARAMETERS[name]


def test_a_variant_has_the_shape_of_what_it_was_tuned_from() -> None:
    assert set(VARIANTS.values()) <= set(POPULAR)
    tuned = popular_config("meta-llama/Llama-3.1-8B-Instruct")
    assert tuned is POPULAR["meta-llama/Llama-3.1-8B"]
    assert popular_config("someone/else") is None


def test_a_local_model_is_what_its_folder_says(base_models: Path, tmp_path: Path) -> None:
    assert model_config(str(base_models / "small"))["model_type"] == "llama"
    assert model_config(str(tmp_path)) is None


def test_a_popular_model_is_known_without_the_hub() -> None:
    found = model_config("meta-llama/Llama-2-7b-hf", ask_the_hub=False)
    assert found == POPULAR["meta-llama/Llama-2-7b-hf"]
    assert model_config("someone/unheard-of", ask_the_hub=False) is None
