"""POPULAR: the shapes of well-known models, for planning without access to a hub.

Each row has the numbers of the model's config.json on the hub (huggingface.co/NAME, config.json; a
variant has those of the row it names). A test compares the parameters that follow from each row
with the number that the hub shows for the model's safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LLAMA_3_VOCABULARY, _QWEN_VOCABULARY = 128_256, 151_936


def _config(
    model_type: str,
    *,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    positions: int,
    tied: bool = False,
    **more: Any,
) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
        "tie_word_embeddings": tied,
        **more,
    }


def _llama_2(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, Any]:
    return _config(
        "llama",
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        vocabulary=32_000,
        positions=4096,
    )


def _llama_3_8b(positions: int) -> dict[str, Any]:
    return _config(
        "llama",
        hidden=4096,
        intermediate=14_336,
        layers=32,
        heads=32,
        kv_heads=8,
        vocabulary=_LLAMA_3_VOCABULARY,
        positions=positions,
    )


def _llama_3_2(hidden: int, layers: int, heads: int, head_dim: int) -> dict[str, Any]:
    return _config(
        "llama",
        hidden=hidden,
        intermediate=8192,
        layers=layers,
        heads=heads,
        kv_heads=8,
        vocabulary=_LLAMA_3_VOCABULARY,
        positions=131_072,
        tied=True,
        head_dim=head_dim,
    )


def _qwen_2_5(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int
) -> dict[str, Any]:
    is_large = hidden > 2048
    return _config(
        "qwen2",
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        vocabulary=152_064 if is_large else _QWEN_VOCABULARY,
        positions=32_768,
        tied=not is_large,
    )


def _mistral_7b(vocabulary: int, sliding_window: int | None) -> dict[str, Any]:
    return _config(
        "mistral",
        hidden=4096,
        intermediate=14_336,
        layers=32,
        heads=32,
        kv_heads=8,
        vocabulary=vocabulary,
        positions=32_768,
        sliding_window=sliding_window,
    )


_TINY_LLAMA = _config(
    "llama",
    hidden=2048,
    intermediate=5632,
    layers=22,
    heads=32,
    kv_heads=4,
    vocabulary=32_000,
    positions=2048,
)

POPULAR: Mapping[str, Mapping[str, Any]] = {
    "meta-llama/Llama-2-7b-hf": _llama_2(4096, 11_008, 32, 32),
    "meta-llama/Llama-2-13b-hf": _llama_2(5120, 13_824, 40, 40),
    "meta-llama/Meta-Llama-3-8B": _llama_3_8b(8192),
    "meta-llama/Llama-3.1-8B": _llama_3_8b(131_072),
    "meta-llama/Llama-3.2-1B": _llama_3_2(2048, 16, 32, 64),
    "meta-llama/Llama-3.2-3B": _llama_3_2(3072, 28, 24, 128),
    "Qwen/Qwen2.5-0.5B": _qwen_2_5(896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-1.5B": _qwen_2_5(1536, 8960, 28, 12, 2),
    "Qwen/Qwen2.5-3B": _qwen_2_5(2048, 11_008, 36, 16, 2),
    "Qwen/Qwen2.5-7B": _qwen_2_5(3584, 18_944, 28, 28, 4),
    "mistralai/Mistral-7B-v0.1": _mistral_7b(32_000, 4096),
    "mistralai/Mistral-7B-v0.3": _mistral_7b(32_768, None),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _TINY_LLAMA,
}
VARIANTS: Mapping[str, str] = {  # fine-tuned models, by the row whose shape they have
    "meta-llama/Llama-2-7b-chat-hf": "meta-llama/Llama-2-7b-hf",
    "meta-llama/Llama-2-13b-chat-hf": "meta-llama/Llama-2-13b-hf",
    "meta-llama/Meta-Llama-3-8B-Instruct": "meta-llama/Meta-Llama-3-8B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "meta-llama/Meta-Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B-Instruct": "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B-Instruct": "meta-llama/Llama-3.2-3B",
    "Qwen/Qwen2.5-0.5B-Instruct": "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2.5-1.5B-Instruct": "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2.5-3B-Instruct": "Qwen/Qwen2.5-3B",
    "Qwen/Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B",
    "mistralai/Mistral-7B-Instruct-v0.1": "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-Instruct-v0.3": "mistralai/Mistral-7B-v0.3",
}


def popular_config(name: str) -> Mapping[str, Any] | None:
    """The numbers of a model by its hub id, or None."""
    return POPULAR.get(VARIANTS.get(name, name))
