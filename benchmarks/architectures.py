"""Compares memory estimates with measurements on small models of seven architectures.

    python -m benchmarks.architectures

Each has what simulations of plain models don't meet: sliding windows, scores written as a formula,
one key head for all queries, experts, a first block of another kind, a part for images. Prints the
table of docs/memory.md; see `benchmarks.memory_prediction` for how it is measured.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.memory_prediction import Case, Comparison, compare

_GEMMA: Mapping[str, Any] = {
    "vocab_size": 12288,
    "hidden_size": 160,
    "intermediate_size": 480,
    "num_attention_heads": 4,
    "head_dim": 48,
    "sliding_window": 40,
    "max_position_embeddings": 512,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma2": {
        **_GEMMA,
        "model_type": "gemma2",
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "query_pre_attn_scalar": 48,
    },
    "gemma3": {
        **_GEMMA,
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 48,
    },
    "gemma3 with images": {
        "model_type": "gemma3",
        "text_config": {
            **_GEMMA,
            "model_type": "gemma3_text",
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        "mm_tokens_per_image": 4,
        "image_token_index": 300,
        "boi_token_index": 301,
        "eoi_token_index": 302,
    },
    "falcon": {
        "model_type": "falcon",
        "vocab_size": 2048,
        "hidden_size": 288,
        "num_hidden_layers": 4,
        "num_attention_heads": 9,
        "multi_query": True,
        "new_decoder_architecture": False,
        "parallel_attn": True,
        "alibi": False,
        "bias": False,
    },
    "olmo2": {
        "model_type": "olmo2",
        "vocab_size": 2048,
        "hidden_size": 224,
        "intermediate_size": 640,
        "num_hidden_layers": 5,
        "num_attention_heads": 7,
        "num_key_value_heads": 7,
        "max_position_embeddings": 512,
    },
    "mixtral": {
        "model_type": "mixtral",
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 6,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 512,
    },
    "deepseek": {
        "model_type": "deepseek_v2",
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 448,
        "moe_intermediate_size": 96,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "kv_lora_rank": 48,
        "q_lora_rank": None,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "max_position_embeddings": 512,
    },
}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16, checkpointing": {"compute_dtype": "bfloat16", "gradient_checkpointing": True},
}


def case(architecture: str, variant: str) -> Case:
    """A LoRA of an architecture on four examples of different lengths."""
    config = ARCHITECTURES[architecture]
    size = config.get("text_config", config)["vocab_size"]
    return Case(
        config={**config, "vocab_size": size},
        knobs={
            "quantization": "none",
            "compute_dtype": "float32",
            "gradient_checkpointing": False,
            "rank": 8,
            "optimizer": "adamw",
            "batch_size": 4,
            "gradient_accumulation": 1,
            **VARIANTS[variant],
        },
        lengths=(120, 100, 90, 110),
        eval_lengths=(130, 90, 100, 120),
        completion_tokens=6,
        new_tokens=12,
    )


def main() -> None:
    torch.set_num_threads(1)
    print("\n".join(table()))


def table() -> Iterator[str]:
    """The rows of a table in Markdown: predicted and measured megabytes, and the error."""
    yield "| model | | training, predicted | measured | | evaluation, predicted | measured | |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for architecture in ARCHITECTURES:
        for variant in VARIANTS:
            with tempfile.TemporaryDirectory() as folder:
                found = compare(case(architecture, variant), Path(folder))
            yield f"| {architecture} | {variant} | {_cells(found)} |"


def _cells(found: Comparison) -> str:
    cells = []
    for (predicted, measured), error in zip(
        (found.train, found.evaluation), found.errors, strict=True
    ):
        cells += [f"{predicted / 1e6:.2f}", f"{measured / 1e6:.2f}", f"{error:+.2%}"]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
