"""Memory and FLOPs of samples and beams: as measured, and unchanged for greedy decoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory_prediction import Case, compare
from tests.tiny_trials import make_spec, shared_base
from trainables.evaluation.decoding import Draw
from trainables.evaluation.generation import generate
from trainables.resources.estimate import Workload
from trainables.simulation.estimate import digest, predict
from trainables.simulation.kernels import FLOPS
from trainables.spec.decoding import Decoding
from trainables.spec.knobs import canonical

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 8192,  # scores outweigh the rest, so that their copies show
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
KNOBS = {
    "method": "lora",
    "quantization": "none",
    "compute_dtype": "float32",
    "rank": 2,
    "optimizer": "sgd",
    "batch_size": 1,
    "gradient_accumulation": 1,
    "gradient_checkpointing": False,
}
CASE = Case(
    config=CONFIG,
    knobs=KNOBS,
    lengths=(16,),
    eval_lengths=(16, 14, 13, 12),
    completion_tokens=1,
    new_tokens=8,
)
BEAMS = {"decoding": "beam", "beams": 8}
DRAWN = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}
STRATEGIES = [
    {"decoding": "sample"},
    {"decoding": "sample", **DRAWN, "votes": 3},
    BEAMS,
    {"decoding": "beam_sample", "beams": 3, **DRAWN},
]


def _id(knobs: dict[str, Any]) -> str:
    return "-".join(map(str, knobs.values()))


@pytest.mark.slow
@pytest.mark.parametrize("knobs", STRATEGIES, ids=_id)
def test_the_prediction_is_what_the_allocator_sees(knobs: dict[str, Any], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = compare(replace(CASE, knobs={**KNOBS, **knobs}), tmp_path)
    assert found.is_within_allowance, found
    assert max(map(abs, found.errors)) < 0.01, found


def test_beams_need_more_and_votes_need_no_more() -> None:
    def evaluation(**knobs: Any) -> int:
        work = Workload(1, 16, completion_tokens=1, eval_batch_size=4, new_tokens=4)
        return predict(CONFIG, _canonical(**knobs), work).eval_memory_bytes

    greedy, sample = evaluation(), evaluation(decoding="sample")
    assert greedy < evaluation(**BEAMS) and greedy <= sample
    assert evaluation(decoding="sample", votes=9) == sample


def test_an_estimate_is_known_by_what_a_strategy_needs() -> None:
    def key(**knobs: Any) -> str:
        work = Workload(batch_size=1, sequence_length=16)
        return digest(CONFIG, _canonical(**knobs), work, device="cpu")

    assert key() == key(decoding="greedy")
    assert len({key(), key(decoding="sample"), key(**BEAMS), key(**{**BEAMS, "beams": 4})}) == 4
    drawn = {"decoding": "sample", "temperature": 0.3, "decoding_seed": 4}
    assert key(**drawn) == key(decoding="sample")
    assert key(**drawn, top_p=0.9) == key(decoding="sample", top_p=0.5) != key(**drawn)


@pytest.mark.parametrize("decoding", [Decoding("sample"), Decoding("beam", beams=3)])
def test_flops_are_those_that_are_done(decoding: Decoding, tiny_llama: Path) -> None:
    """The batch that was answered, times the rates of an estimate, against torch's counter."""
    spec = make_spec(tiny_llama, method="untrained")
    base = shared_base(spec)
    prompts = [[5, 6, 7, 8] * 12, [9, 10, 11] * 10, [6] * 48]
    draw = Draw(decoding, ids=("a", "b", "c"))
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_MAPPING) as counted:
        _, work = generate(base.model, base, prompts, 6, draw=draw)
    assert work.batch_size == 3 * decoding.beams
    workload = Workload(batch_size=1, sequence_length=52, eval_batch_size=3)
    estimate = predict(base.model.config.to_dict(), spec.knobs, workload)
    assert work.flops(estimate.forward) == pytest.approx(counted.get_total_flops(), rel=0.01)


def _canonical(**knobs: Any) -> dict[str, Any]:
    return canonical({"model": "m", **KNOBS, **knobs})


def _attention(*given: Any, out_val: Any = None, **named: Any) -> int:
    return FLOPS[_ATTENTION](*given)


_attention._get_raw = True  # type: ignore[attr-defined]  # it takes tensors and not shapes
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_MAPPING = {_ATTENTION: _attention}
