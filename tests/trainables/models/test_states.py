"""A pass after kept states has the logits of a pass over all tokens, and leaves them alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.architectures import ARCHITECTURES
from trainables.models.states import has_states, inputs_after, states_of

_SMALL = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGS: dict[str, dict[str, Any]] = {
    **ARCHITECTURES,
    "llama": {**_SMALL, "model_type": "llama"},
    "qwen2": {**_SMALL, "model_type": "qwen2"},
    "gpt_neox": {**_SMALL, "model_type": "gpt_neox"},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 400},
    "falcon with alibi": {**ARCHITECTURES["falcon"], "alibi": True},
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "mistral with a window": {**_SMALL, "model_type": "mistral", "sliding_window": 32},
    "mistral": {**_SMALL, "model_type": "mistral", "sliding_window": None},
    "mamba": {"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2},
}
WITHOUT = {
    "gemma2",
    "gemma3",
    "gemma3 with images",
    "mistral with a window",
    "bloom",
    "mamba",
}
LENGTHS = (9, 6, 7)  # of the rows' own tokens
SHARED = 12


def config_of(name: str) -> Any:
    return AutoConfig.for_model(**CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_windows_and_states_of_fixed_size_are_not_kept(name: str) -> None:
    assert has_states(config_of(name)) is (name not in WITHOUT)


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - WITHOUT))
def test_logits_and_answers_after_states_are_those_of_whole_rows(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(name)).eval()
    shared = torch.randint(3, 300, (1, SHARED))
    rows = [torch.randint(3, 300, (length,)) for length in LENGTHS]
    ids = torch.zeros((len(rows), max(LENGTHS)), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, -len(row) :] = row
    mask = (ids > 0).long()
    with torch.no_grad():
        begun = states_of(model, shared, torch.ones_like(shared))
        before = [part.clone() for block in begun.blocks for part in block]
        whole = torch.cat([shared.expand(len(rows), -1), ids], dim=1)
        seen = torch.cat([torch.ones(len(rows), SHARED, dtype=torch.long), mask], dim=1)
        for cache in (begun.lent(len(rows)), begun.growing(len(rows))):
            logits = model(
                **inputs_after(begun, ids, mask), past_key_values=cache, use_cache=True
            ).logits
            for at, row in enumerate(rows):
                alone = model(input_ids=torch.cat([shared, row[None]], dim=1)).logits[0]
                torch.testing.assert_close(
                    logits[at, -len(row) :], alone[-len(row) :], rtol=1e-4, atol=1e-5
                )
        written = _written(model, whole, seen, past_key_values=begun.growing(len(rows)))
        for at, row in enumerate(rows):
            prompt = torch.cat([shared, row[None]], dim=1)
            assert written[at] == _written(model, prompt, torch.ones_like(prompt))[0]
    after = [part for block in begun.blocks for part in block]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert begun.bytes == sum(part.nbytes for part in before)


def _written(model: Any, ids: torch.Tensor, mask: torch.Tensor, **more: Any) -> list[list[int]]:
    options = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    written = model.generate(input_ids=ids, attention_mask=mask, **options, **more)
    return [row[ids.shape[1] :].tolist() for row in written]
