"""Attention on a simulated GPU: torch's conditions for its kernels, and what each keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from benchmarks.architectures import ARCHITECTURES
from trainables.resources.estimate import Workload
from trainables.simulation.attention import Attention, Backend, cuda_attention
from trainables.simulation.estimate import predict
from trainables.spec.knobs import canonical

FLASH, EFFICIENT, MATH = Backend
WORKLOAD = Workload(batch_size=2, sequence_length=64, eval_batch_size=2, new_tokens=4)


def attention(
    heads: tuple[int, int] = (8, 8),
    sizes: tuple[int, int] = (64, 64),
    lengths: tuple[int, int] = (32, 32),
    dtype: torch.dtype = torch.bfloat16,
    **given: Any,
) -> Attention:
    """`heads`: of query and key; `sizes`: of a query's and of a value's head."""
    with torch.device("meta"):
        query = torch.empty(2, heads[0], lengths[0], sizes[0], dtype=dtype)
        key = torch.empty(2, heads[1], lengths[1], sizes[0], dtype=dtype)
        value = torch.empty(2, heads[1], lengths[1], sizes[1], dtype=dtype)
    return Attention(query, key, value, **given)


def mask(last: int = 32) -> torch.Tensor:
    return torch.empty(2, 1, 32, last, dtype=torch.bool, device="meta")


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        (attention(is_causal=True), FLASH),
        (attention(mask=mask()), EFFICIENT),
        (attention(dtype=torch.float32, is_causal=True), EFFICIENT),
        (attention(dtype=torch.float64), MATH),
        (attention(heads=(8, 2), enable_gqa=True), FLASH),
        (attention(heads=(8, 2), enable_gqa=True, dtype=torch.float32), MATH),
        (attention(heads=(8, 2), enable_gqa=True, mask=mask()), MATH),
        (attention(heads=(71, 1)), MATH),  # as Falcon 7B
        (attention(sizes=(192, 128)), EFFICIENT),  # as DeepSeek V2
        (attention(sizes=(192, 128), heads=(8, 2), enable_gqa=True), MATH),
        (attention(sizes=(256, 256)), FLASH),
        (attention(sizes=(264, 264)), EFFICIENT),
        (attention(sizes=(20, 20)), FLASH),
        (attention(sizes=(20, 20), mask=mask()), MATH),
        (attention(sizes=(20, 20), mask=mask(), dtype=torch.float32), EFFICIENT),
        (attention(lengths=(1, 32)), FLASH),
        (attention(lengths=(16, 32), is_causal=True), EFFICIENT),
    ],
)
def test_the_kernel_is_the_first_whose_conditions_hold(given: Attention, backend: Backend) -> None:
    assert given.backend is backend


def test_columns_apart_and_other_types_are_no_input_of_a_fused_kernel() -> None:
    given = attention()
    apart = replace(given, query=given.query.transpose(2, 3).contiguous().transpose(2, 3))
    assert apart.backend is MATH
    assert replace(given, value=given.value.float()).backend is MATH


@pytest.mark.parametrize("sizes", [(48, 32), (64, 64)])
@pytest.mark.parametrize("last", [30, 32])
def test_results_have_the_size_of_values(sizes: tuple[int, int], last: int) -> None:
    with FakeTensorMode():
        query, key = torch.empty(2, 4, 32, sizes[0]), torch.empty(2, 4, last, sizes[0])
        value, seen = torch.empty(2, 4, last, sizes[1]), torch.ones(2, 1, 32, last, dtype=bool)  # type: ignore[call-overload]
        assert cuda_attention(query, key, value).shape == (2, 4, 32, sizes[1])
        assert cuda_attention(query, key, value, seen).shape == (2, 4, 32, sizes[1])


@pytest.mark.parametrize("architecture", ["falcon", "olmo2"])
def test_one_key_head_for_all_queries_keeps_all_scores(architecture: str) -> None:
    """The probabilities of each block, in float32, until the backward pass; fused attention keeps
    no more than the mask, for each block, in the type of the queries."""
    config = ARCHITECTURES[architecture]
    knobs = canonical({"model": "m", "compute_dtype": "bfloat16", "rank": 4})

    def needed(length: int) -> int:
        work = replace(WORKLOAD, sequence_length=length, completion_tokens=1)
        return predict(config, knobs, work, device="cuda").train_memory_bytes

    beyond_a_line = needed(512) - 2 * needed(256)
    pairs = 2 * (512**2 - 2 * 256**2) * config["num_hidden_layers"]
    scores = 4 * pairs * config["num_attention_heads"]
    assert (beyond_a_line > scores) == (architecture == "falcon")
    assert beyond_a_line < 2 * scores
