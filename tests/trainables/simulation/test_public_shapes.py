"""Public models' shapes, at full size: each is estimated, with the FLOPs of the weights it has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trainables.models.quantized import linear_weights
from trainables.resources.estimate import Workload
from trainables.simulation.depth import model_config
from trainables.simulation.estimate import predict
from trainables.spec.knobs import canonical

pytestmark = pytest.mark.slow

WORKLOAD = Workload(
    batch_size=1, sequence_length=512, completion_tokens=16, eval_batch_size=1, new_tokens=16
)
GEMMA_3_TEXT = {"head_dim": 256, "sliding_window_pattern": 6, "vocab_size": 262208}
# What the models' config.json says and decides about shapes; the rest are transformers' defaults.
PUBLIC: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "Mistral-7B-v0.3": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "sliding_window": None,
        "vocab_size": 32768,
    },
    "gemma-2-2b": {
        "model_type": "gemma2",
        "head_dim": 256,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_hidden_layers": 26,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "vocab_size": 256000,
    },
    "gemma-3-1b": {
        **GEMMA_3_TEXT,
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "intermediate_size": 6912,
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "sliding_window": 512,
        "vocab_size": 262144,
    },
    "gemma-3-4b": {
        "model_type": "gemma3",
        "text_config": {
            **GEMMA_3_TEXT,
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "sliding_window": 1024,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "vision_use_head": False,
        },
    },
    "Falcon-7b": {
        "model_type": "falcon",
        "alibi": False,
        "bias": False,
        "hidden_size": 4544,
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": 71,
        "num_hidden_layers": 32,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "Mixtral-8x7B": {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "vocab_size": 32000,
    },
    "DeepSeek-V2-Lite": {
        "model_type": "deepseek_v2",
        "first_k_dense_replace": 1,
        "hidden_size": 2048,
        "intermediate_size": 10944,
        "kv_lora_rank": 512,
        "moe_intermediate_size": 1408,
        "n_group": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "topk_group": 1,
        "topk_method": "greedy",
        "v_head_dim": 128,
        "vocab_size": 102400,
    },
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_token_costs_twice_the_weights_that_it_meets(name: str) -> None:
    config = PUBLIC[name]
    knobs = canonical({"model": name, "method": "full", "compute_dtype": "bfloat16"})
    found = predict(config, knobs, WORKLOAD, device="cuda")
    weights = weights_that_a_token_meets(config)
    assert found.forward.token == pytest.approx(2 * weights, rel=0.03)
    assert found.training.token == pytest.approx(6 * weights, rel=0.03)


def weights_that_a_token_meets(config: dict[str, Any]) -> float:
    """The linear weights of the text decoder; of stacked experts as many as a token is sent to."""
    whole = model_config(copy.deepcopy(config))
    text = whole.get_text_config(decoder=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(whole)
    met = getattr(text, "num_experts_per_tok", None)
    stacks = {name for name, weight in model.named_parameters() if weight.ndim == 3}
    total = 0.0
    for weight in linear_weights(model):
        if "vision" in weight.name or "multi_modal" in weight.name:
            continue
        share = met / model.get_parameter(weight.name).shape[0] if weight.name in stacks else 1
        total += weight.count * share
    return total
