"""Any depth: extrapolated where the blocks repeat, simulated whole where that isn't shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.architectures import ARCHITECTURES
from trainables.errors import InputError
from trainables.resources.estimate import Workload
from trainables.simulation import depth as simulate_depth
from trainables.simulation import step
from trainables.simulation.depth import model_config, simulate_any_depth
from trainables.simulation.estimate import predict
from trainables.simulation.phases import TRAIN_PHASES
from trainables.spec.knobs import canonical

WORKLOAD = Workload(batch_size=2, sequence_length=96, eval_batch_size=2, new_tokens=4)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
QWEN = {**LLAMA, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 32}


def configuration(**knobs: Any) -> dict[str, Any]:
    return canonical({"model": "m", "compute_dtype": "float32", "rank": 4, **knobs})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "depths", "method"),
    [
        ({**LLAMA, "num_hidden_layers": 10}, (2, 3, 4), {}),
        ({**ARCHITECTURES["deepseek"], "num_hidden_layers": 13}, (3, 4, 5), {}),
        ({**LLAMA, "num_hidden_layers": 20}, (5, 6, 7), {"method": "partial", "blocks": 3}),
        ({**LLAMA, "num_hidden_layers": 10}, (2, 3, 4), {"method": "bias"}),
    ],
    ids=["blocks of one kind", "a first block of another kind", "last blocks trained", "bias"],
)
def test_a_deep_model_is_predicted_from_shallow_ones(
    config: dict[str, Any], depths: tuple[int, ...], method: dict[str, Any]
) -> None:
    knobs = configuration(gradient_checkpointing=True, **method)
    found, simulated = simulate_any_depth(config, knobs, WORKLOAD, device="cpu")
    assert simulated == depths
    whole = step.simulate(model_config(config), knobs, WORKLOAD, device="cpu")
    peaks = [whole.bytes[name] for name in TRAIN_PHASES]
    assert max(map(found.bytes.get, TRAIN_PHASES, [0] * 5)) == pytest.approx(max(peaks), rel=0.002)
    assert found.bytes["base"] == whole.bytes["base"]
    assert found.flops == pytest.approx(whole.flops, rel=0.001)


@pytest.mark.slow
def test_blocks_that_differ_are_extrapolated_by_whole_periods() -> None:
    kinds = ["sliding_attention", "full_attention"] * 10
    patterned = {**QWEN, "num_hidden_layers": 20, "layer_types": kinds}
    assert predict(patterned, configuration(), WORKLOAD).depths == (4, 6, 8)


@pytest.mark.slow
def test_a_model_is_simulated_whole_if_shallow_ones_have_as_many_blocks() -> None:
    """As Gemma 3 1B, with five blocks of sliding windows to one without in 26."""
    gemma = {**ARCHITECTURES["gemma3"], "num_hidden_layers": 26}
    assert predict(gemma, configuration(method="untrained"), WORKLOAD).depths == (26,)


@pytest.mark.slow
def test_kinds_without_a_period_are_simulated_whole() -> None:
    kinds = [f"{'full' if at in {1, 2, 7, 11} else 'sliding'}_attention" for at in range(13)]
    uneven = {**QWEN, "num_hidden_layers": 13, "layer_types": kinds}
    assert predict(uneven, configuration(method="untrained"), WORKLOAD).depths == (13,)


@pytest.mark.slow
def test_a_phase_that_is_no_line_over_depth_is_simulated_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = step.simulate

    def bent(config: Any, *given: Any, **named: Any) -> Any:
        found = real(config, *given, **named)
        return replace(found, bytes={**found.bytes, "loss": config.num_hidden_layers**3 * 10**6})

    monkeypatch.setattr(simulate_depth, "simulate", bent)
    deep = {**LLAMA, "num_hidden_layers": 10, "vocab_size": 640}
    found = predict(deep, configuration(), WORKLOAD)
    assert found.depths == (10,)
    assert found.phases["loss"] > 1000 * 10**6


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ({"model_type": "lamma"}, r"has the model_type 'lamma', .* Did you mean 'llama'\?"),
        ({"model_type": "zzz"}, r"has the model_type 'zzz', unknown to transformers \S+ Use a"),
        ({}, "has no model_type; needs one that transformers knows, as llama."),
        ({"model_type": ["llama"]}, "has no model_type"),
    ],
)
def test_an_unknown_model_type_is_said_in_one_short_line(
    model_type: dict[str, Any], message: str
) -> None:
    known = {name: value for name, value in LLAMA.items() if name != "model_type"}
    with pytest.raises(InputError, match=message) as raised:
        model_config({**known, **model_type})
    assert len(str(raised.value)) < 160
