"""Estimates: equal to what the allocator sees, FLOPs independent of quantization."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.architectures import ARCHITECTURES, case
from benchmarks.memory_prediction import (
    Case,
    compare,
    draw,
    with_choices,
    with_shared_beginning,
)
from trainables.errors import InputError
from trainables.resources.estimate import Estimate, Workload
from trainables.simulation import depth as simulate_depth
from trainables.simulation import estimate
from trainables.simulation.estimate import digest, predict
from trainables.simulation.service import answers
from trainables.simulation.step import paged_adamw_8bit_bytes
from trainables.spec.knobs import canonical
from trainables.spec.quantization import QUANTIZATIONS

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
SMALL = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
WORKLOAD = Workload(batch_size=2, sequence_length=96, eval_batch_size=2, new_tokens=4)
WORKLOAD_8B = Workload(batch_size=4, sequence_length=1024, eval_batch_size=8)
GIBIBYTE = 1 << 30


def small(workload: Workload = WORKLOAD, *, device: str = "cpu", **knobs: Any) -> Estimate:
    return predict(SMALL, configuration(**knobs), workload, device=device)


def configuration(**knobs: Any) -> dict[str, Any]:
    return canonical({"model": "m", "compute_dtype": "float32", "rank": 4, **knobs})


@pytest.mark.parametrize("index", [10, 11])
def test_the_prediction_is_what_the_allocator_sees(index: int, tmp_path: Path) -> None:
    _check(index, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(10))
def test_ten_random_configurations_are_predicted(index: int, tmp_path: Path) -> None:
    _check(index, tmp_path)


@pytest.mark.parametrize(("index", "shared"), [(1, True), (2, False), (7, True)])
def test_shared_beginnings_and_choices_are_predicted(
    index: int, shared: bool, tmp_path: Path
) -> None:
    case = with_choices(draw(index + 1, seed=1)[index]) if index != 7 else draw(8, seed=1)[7]
    _check_case(with_shared_beginning(case) if shared else case, tmp_path)


def _check(index: int, folder: Path) -> None:
    _check_case(draw(index + 1, seed=1)[index], folder)


def _check_case(case: Case, folder: Path) -> None:
    torch.set_num_threads(1)
    found = compare(case, folder)
    assert found.is_within_allowance, found
    assert max(map(abs, found.errors)) < 0.02, found


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_predicted(architecture: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = compare(case(architecture, "bfloat16, checkpointing"), tmp_path)
    assert found.is_within_allowance, found
    training, evaluation = map(abs, found.errors)
    assert training < 0.01, found
    assert evaluation < 0.03, found


@pytest.mark.slow
def test_flops_are_the_same_for_every_quantization() -> None:
    dense = small()
    for quantization in QUANTIZATIONS:
        found = small(quantization=quantization)
        assert found.train_flops_per_step == pytest.approx(dense.train_flops_per_step, rel=0.01)
        assert found.eval_flops_per_batch == pytest.approx(dense.eval_flops_per_batch, rel=0.01)


def test_flops_are_those_of_a_hand_formula() -> None:
    """A multiply and an add per weight and token; forward, and backward through frozen weights.

    Adapters have a gradient of their own besides, and before the first block's query, key and
    value nothing needs one. Attention: two matmuls forward, five backward, since the scores are
    computed again.
    """
    hidden, between, depth, rank, keys = 128, 384, 2, 4, 64
    shapes = [(hidden, hidden)] * 2 + [(hidden, keys)] * 2 + [(hidden, between)] * 3
    frozen = depth * sum(a * b for a, b in shapes)
    adapters = depth * sum(rank * (a + b) for a, b in shapes)
    work, positions = WORKLOAD, WORKLOAD.positions
    tokens, pairs = 2 * 96, 2 * 96**2
    forward = 2 * (frozen + adapters) * tokens + 2 * 2 * hidden * depth * pairs
    backward = (2 * frozen + 4 * adapters) * tokens + 5 * 2 * hidden * depth * pairs
    backward -= 2 * (hidden * (hidden + 2 * keys) + 3 * rank * hidden) * tokens
    head = 2 * hidden * 1024 * 2 * positions
    found = small()
    assert found.train_flops_per_step == pytest.approx(forward + backward + 2 * head, rel=0.03)
    judged = found.forward.of(batch_size=2, length=96, positions=work.eval_positions)
    assert judged == pytest.approx(forward + head, rel=0.03)


@pytest.mark.parametrize(("method", "passes"), [("lora", 2), ("full", 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flops_of_logits_are_told_apart_also_of_a_head_that_is_cast(
    method: str, passes: int, dtype: str
) -> None:
    knobs = canonical({"model": "m", "method": method, "compute_dtype": dtype})
    found = predict(SMALL, knobs, WORKLOAD, device="cuda")
    assert found.forward.logit == 2 * 128 * 1024
    assert found.training.logit == passes * found.forward.logit


def test_flops_of_other_lengths_follow_from_one_simulation() -> None:
    longer = replace(WORKLOAD, batch_size=3, sequence_length=200)
    whole = small(longer)
    short = small()
    expected = short.training.of(batch_size=3, length=200, positions=longer.positions)
    assert whole.train_flops_per_step == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_flops_are_counted_alike_with_a_shared_beginning_and_save_what_it_saves() -> None:
    rows = Workload(batch_size=2, sequence_length=96, eval_batch_size=8, new_tokens=6)
    begun = dataclasses.replace(rows, eval_beginning=60)
    whole, shared = small(rows), small(begun)
    assert shared.forward == whole.forward
    assert shared.eval_flops_per_batch < whole.eval_flops_per_batch / 2
    assert shared.phases["eval_loss"] < whole.phases["eval_loss"]
    assert shared.phases["eval_beginning"] < shared.phases["eval_loss"]


def test_what_takes_less_memory_is_predicted_to() -> None:
    usual = small().train_memory_bytes
    assert small(gradient_checkpointing=True).train_memory_bytes < usual
    assert small(optimizer="sgd", rank=64).train_memory_bytes < small(rank=64).train_memory_bytes
    assert (
        small(quantization="nf4").base_memory_bytes < small(quantization="int8").base_memory_bytes
    )
    assert small(replace(WORKLOAD, batch_size=4)).train_memory_bytes > usual
    assert small(replace(WORKLOAD, sequence_length=192)).train_memory_bytes > usual
    assert small(replace(WORKLOAD, accumulated=True)).train_memory_bytes > usual
    assert small(replace(WORKLOAD, eval_batch_size=8)).eval_memory_bytes > small().eval_memory_bytes


@pytest.mark.parametrize(
    ("quantization", "checkpointing"),
    [("none", False), ("int8", True), ("nf4", True), ("fp4", False)],
)
def test_a_gpu_is_simulated_where_there_is_none(quantization: str, checkpointing: bool) -> None:
    found = small(
        device="cuda",
        quantization=quantization,
        compute_dtype="bfloat16",
        gradient_checkpointing=checkpointing,
        optimizer="paged_adamw_8bit",
    )
    assert found.device_memory_bytes >= found.train_memory_bytes + found.terms["cuda_context"].bytes
    assert found.terms["optimizer_state"].bytes > 0
    assert all(term.source for term in found.terms.values())


def test_full_fine_tuning_holds_gradients_and_states_of_every_weight() -> None:
    knobs = {**configuration(), "method": "full"}
    found = predict(SMALL, knobs, WORKLOAD)
    assert found.base_memory_bytes < 1024  # the positions' frequencies
    weights = found.terms["trained"].bytes
    assert found.terms["gradients"].bytes == weights
    assert found.terms["optimizer_state"].bytes == pytest.approx(2 * weights, rel=0.01)
    assert found.train_memory_bytes > 4 * weights


def test_a_baseline_is_only_judged() -> None:
    found = small(method="untrained")
    assert found.train_memory_bytes == 0
    assert found.train_flops_per_step == 0
    assert found.eval_memory_bytes > found.base_memory_bytes


def test_states_of_a_paged_optimizer_are_those_that_it_makes() -> None:
    assert paged_adamw_8bit_bytes(4095) == (2 * 4 * 4095, 0)
    assert paged_adamw_8bit_bytes(4096) == (2 * 4096 + 2 * 4 * 16, 0)
    assert paged_adamw_8bit_bytes(100_000) == (2 * 4 * 391, 200_000)


def test_only_what_takes_memory_decides_whether_a_prediction_is_known() -> None:
    def key(config: dict[str, Any] = SMALL, **knobs: Any) -> str:
        return digest(config, configuration(**knobs), WORKLOAD, device="cpu")

    assert key() == key(learning_rate=1e-5, seed=3, alpha=64)
    assert key() == key({**SMALL, "bos_token_id": 7, "_name_or_path": "elsewhere"})
    assert key() != key(rank=8)
    assert key() != key(dropout=0.1)
    assert key() != key({**SMALL, "hidden_size": 256})


def test_predictions_are_kept_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = predict(SMALL, configuration(rank=3), WORKLOAD, cache=tmp_path)
    monkeypatch.setattr(estimate, "_estimates", {})
    monkeypatch.setattr(simulate_depth, "simulate", _not_again)
    assert predict(SMALL, configuration(rank=3), WORKLOAD, cache=tmp_path) == first
    [file] = tmp_path.iterdir()
    file.write_text("{")
    monkeypatch.setattr(estimate, "_estimates", {})
    with pytest.raises(AssertionError, match="simulated again"):
        predict(SMALL, configuration(rank=3), WORKLOAD, cache=tmp_path)


def _not_again(*given: Any, **named: Any) -> Any:
    raise AssertionError("simulated again")


def test_requests_are_answered_line_by_line_and_a_bad_one_spoils_no_other() -> None:
    good = {"config": SMALL, "knobs": configuration(), "workload": {"batch_size": 2}}
    good["workload"] |= {"sequence_length": 96, "eval_batch_size": 2, "new_tokens": 4}
    requests = [
        json.dumps({"id": "a", **good, "config": {"model_type": "nothing"}}),
        "no JSON",
        "",
        json.dumps({"id": "b", **good}),
    ]
    bad, unreadable, last = (json.loads(line) for line in answers(requests, cache=None))
    assert bad["id"] == "a"
    assert "model" in bad["error"]
    assert unreadable["error"]
    assert Estimate.from_json(last["prediction"]) == small()


def test_an_unknown_device_is_a_users_error() -> None:
    with pytest.raises(InputError, match="cpu, cuda"):
        small(device="tpu")


def test_the_answers_type_loads_nothing_heavy() -> None:
    code = "import sys, trainables.resources.estimate; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert not {"torch", "transformers", "peft"} & set(done.stdout.split())


@pytest.mark.slow
def test_an_8b_model_is_predicted_from_a_few_blocks_and_then_known() -> None:
    knobs = configuration(compute_dtype="bfloat16", quantization="nf4")
    found = predict(LLAMA_8B, knobs, WORKLOAD_8B)
    assert found.base_memory_bytes == pytest.approx(5.61 * GIBIBYTE, rel=0.01)
    assert found.depths == (2, 3, 4)
    assert predict(LLAMA_8B, knobs, WORKLOAD_8B) is found


@pytest.mark.slow
def test_the_command_answers_with_nothing_but_lines() -> None:
    """Two requests of which the second is known by then."""
    workload = {"batch_size": 2, "sequence_length": 96}
    request = {"config": SMALL, "knobs": configuration(quantization="int8"), "workload": workload}
    lines = "".join(json.dumps({"id": name, **request}) + "\n" for name in "ab")
    command = [sys.executable, "-m", "trainables.simulation.service"]
    done = subprocess.run(
        command, input=lines, capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["id"], second["id"]) == ("a", "b")
    assert first["prediction"] == second["prediction"]
