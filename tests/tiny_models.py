"""Tiny base models with random weights: two architectures and a small tokenizer.

Random weights suffice to test training; the models are not pre-trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEXTS = (
    "bornova reports in millions of dollars. revenue 2014: 32 revenue 2013: 21",
    "from 2013 to 2014, what was the change in expenses? answer: 11 -7 0.125 yes no",
    "Write only the final number. Question: the figures are audited. Answer: 5",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message['content'] }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, warm_process: None) -> Path:
    """The folder of a Llama without a chat template."""
    return make_llama(tmp_path_factory.mktemp("tiny_llama"))


@pytest.fixture(scope="session")
def tiny_chat_llama(tmp_path_factory: pytest.TempPathFactory, warm_process: None) -> Path:
    """The folder of a Llama with a chat template, which begins with the beginning token."""
    return make_llama(tmp_path_factory.mktemp("tiny_chat_llama"), chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_gpt_neox(tmp_path_factory: pytest.TempPathFactory, warm_process: None) -> Path:
    """The folder of a GPT-NeoX: fused attention weights, no chat template."""
    return make_gpt_neox(tmp_path_factory.mktemp("tiny_gpt_neox"))


def make_tokenizer(*, chat_template: str | None = None, add_bos: bool = True) -> Any:
    """A byte-level BPE tokenizer of about 300 tokens, which decodes any text unchanged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = chat_template
    return fast


def make_llama(
    folder: Path, *, hidden_size: int = 32, chat_template: str | None = None, tied: bool = False
) -> Path:
    """A Llama of two layers with grouped-query attention; `tied` ties its embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        **_COMMON,
    )
    return _save(
        folder, lambda: LlamaForCausalLM(config), make_tokenizer(chat_template=chat_template)
    )


def make_gpt_neox(folder: Path) -> Path:
    """A GPT-NeoX of two layers: query, key and value are one fused matrix; no chat template."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        **_COMMON,
    )
    return _save(folder, lambda: GPTNeoXForCausalLM(config), make_tokenizer(add_bos=False))


def make_mixtral(folder: Path) -> Path:
    """A Mixtral of two layers: its experts are plain tensors, saved one by one."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        **_COMMON,
    )
    return _save(folder, lambda: MixtralForCausalLM(config), make_tokenizer())


def make_falcon(folder: Path) -> Path:
    """A Falcon of two layers: its linear layers are of a subclass of torch's."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=False,
        new_decoder_architecture=False,
        bias=False,
        **_COMMON,
    )
    return _save(folder, lambda: FalconForCausalLM(config), make_tokenizer())


def make_gpt2(folder: Path) -> Path:
    """A GPT-2 of two layers: transposed linear layers (Conv1D), a head tied to the embeddings."""
    from transformers import GPT2Config, GPT2LMHeadModel

    common = {name: value for name, value in _COMMON.items() if name != "max_position_embeddings"}
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **common)
    return _save(folder, lambda: GPT2LMHeadModel(config), make_tokenizer())


_COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "initializer_range": 0.3,  # large enough that answers differ between questions
}


def _save(folder: Path, build: Callable[[], Any], tokenizer: Any) -> Path:
    import torch

    torch.manual_seed(0)
    build().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
