"""Experts, scores written as a formula and sliding windows: FLOPs and cached lengths."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.architectures import ARCHITECTURES
from trainables.resources.estimate import Estimate, FlopRates, Workload
from trainables.simulation.estimate import predict
from trainables.spec.knobs import canonical

WORKLOAD = Workload(
    batch_size=2, sequence_length=96, completion_tokens=4, eval_batch_size=2, new_tokens=4
)


def estimate(
    config: dict[str, Any], workload: Workload = WORKLOAD, *, device: str = "cpu", **knobs: Any
) -> Estimate:
    given = {"model": "m", "compute_dtype": "float32", "method": "full", **knobs}
    return predict(config, canonical(given), workload, device=device)


def mixtral(of: dict[str, Any]) -> int:
    """Weights that a token meets: two of the experts, and the router that chooses them."""
    hidden = of["hidden_size"]
    keys = hidden * of["num_key_value_heads"] // of["num_attention_heads"]
    attention = 2 * hidden * hidden + 2 * hidden * keys
    experts = of["num_experts_per_tok"] * 3 * hidden * of["intermediate_size"]
    router = hidden * of["num_local_experts"]
    return int(of["num_hidden_layers"] * (attention + experts + router))


def deepseek(of: dict[str, Any]) -> int:
    """Weights that a token meets: a first block without experts, others with a shared one."""
    hidden, heads, latent = of["hidden_size"], of["num_attention_heads"], of["kv_lora_rank"]
    plain, rotary, value = (
        of[name] for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    )
    attention = hidden * heads * (plain + rotary) + hidden * (latent + rotary)
    attention += latent * heads * (plain + value) + heads * value * hidden
    experts = of["num_experts_per_tok"] + of["n_shared_experts"]
    mixture = 3 * hidden * of["moe_intermediate_size"] * experts + hidden * of["n_routed_experts"]
    dense = 3 * hidden * of["intermediate_size"]
    return int(
        of["num_hidden_layers"] * attention + dense + (of["num_hidden_layers"] - 1) * mixture
    )


@pytest.mark.parametrize(
    ("architecture", "weights"), [("mixtral", mixtral), ("deepseek", deepseek)]
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_flops_of_experts_are_those_of_the_tokens_routed_to_them(
    architecture: str, weights: Any, device: str
) -> None:
    """Twice the weights that a token meets; three times that with a backward pass for all."""
    config = ARCHITECTURES[architecture]
    dtype = "bfloat16" if device == "cuda" else "float32"
    found = estimate(config, device=device, compute_dtype=dtype)
    forward = 2 * weights(config)
    assert found.forward.token == pytest.approx(forward, rel=0.03)
    assert found.training.token == pytest.approx(3 * forward, rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_of_experts_are_multiplied_once_in_a_pass(dtype: str) -> None:
    """PEFT adds their products to the experts' weights, whatever the number of tokens: twice in a
    forward pass, and with the gradients of both factors in a backward pass. Two matrices that lie
    side by side share an adapter of twice the rank."""
    config, rank = ARCHITECTURES["mixtral"], 4
    knobs: dict[str, Any] = {"method": "lora", "rank": rank, "compute_dtype": dtype}
    of_an_expert = config["hidden_size"] * config["intermediate_size"]
    products = 2 * (2 * of_an_expert * 2 * rank + of_an_expert * rank)
    products *= config["num_local_experts"] * config["num_hidden_layers"]
    found = estimate(config, **knobs)
    assert found.forward.fixed == pytest.approx(2 * products, rel=0.01)
    assert found.training.fixed == pytest.approx(4 * products, rel=0.01)
    longer = replace(WORKLOAD, batch_size=3, sequence_length=200)
    expected = found.training.of(batch_size=3, length=200, positions=longer.positions)
    assert estimate(config, longer, **knobs).train_flops_per_step == pytest.approx(expected)


def test_each_step_of_an_answer_is_a_pass() -> None:
    rates = FlopRates(token=1.0, pair=0.0, logit=0.0, fixed=100.0)
    assert rates.of(batch_size=2, length=7, positions=3) == 2 * 7 + 100
    assert rates.of_generation(batch_size=2, prompt=7, new_tokens=4) == 2 * (7 + 3) + 4 * 100


@pytest.mark.parametrize("architecture", ["gemma2", "falcon", "deepseek"])
def test_scores_written_as_a_formula_grow_with_pairs(architecture: str) -> None:
    config = ARCHITECTURES[architecture]
    short, longer = estimate(config), replace(WORKLOAD, sequence_length=200)
    expected = short.training.of(batch_size=2, length=200, positions=longer.positions)
    assert short.forward.pair > 0
    assert estimate(config, longer).train_flops_per_step == pytest.approx(expected, rel=1e-6)


def test_the_last_step_of_an_answer_is_of_one_token_whichever_block_slides() -> None:
    """A cache whose first block slides knew of no more tokens than its window has."""
    kinds = ["sliding_attention", "full_attention"]
    last = [
        estimate({**ARCHITECTURES["gemma2"], "num_hidden_layers": 2, "layer_types": order}).phases
        for order in (kinds, kinds[::-1])
    ]
    assert last[0]["generation"] == pytest.approx(last[1]["generation"], rel=0.005)
    assert last[0]["generation"] < last[0]["prefill"]


def test_a_window_that_answers_fill_keeps_no_more_than_it_holds() -> None:
    """The prompt is shorter than the window, prompt and answer are longer."""
    config = {**ARCHITECTURES["gemma2"], "sliding_window": 96}
    work = replace(WORKLOAD, eval_prompt_length=90, new_tokens=120)
    wide = estimate({**config, "sliding_window": 300}, work, method="untrained")
    narrow = estimate(config, work, method="untrained")
    states = 2 * 2 * 2 * 48 * 4  # of a token: key and value, rows, heads, their size, bytes
    dropped = 2 * states * (90 + 118 - 95)  # in two blocks
    assert wide.phases["generation"] - narrow.phases["generation"] >= dropped
