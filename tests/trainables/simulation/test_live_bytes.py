"""LiveBytes on fake tensors equals what the allocator sees in a real run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses import FakeTensorMode

from benchmarks.memory_prediction import peak_bytes
from trainables.simulation.kernels import CPU_KERNELS
from trainables.simulation.live_bytes import LiveBytes
from trainables.simulation.special_operations import onednn_types

torch.set_num_threads(1)
SIZE = 512
WITHIN = SIZE * SIZE // 2  # bytes: what oneDNN takes for itself; a 16-bit matrix has 4 times more

Inputs = dict[str, torch.Tensor]


def inputs() -> Inputs:
    """Tensors that are there before anything is measured."""
    return {
        "trained": torch.ones(SIZE, SIZE, requires_grad=True),
        "matrix": torch.ones(SIZE, SIZE),
        "half": torch.ones(SIZE, SIZE, dtype=torch.bfloat16),
        "float16": torch.ones(SIZE, SIZE, dtype=torch.float16),
        "rows": torch.ones(4, 8, SIZE, dtype=torch.bfloat16),
        "mask": torch.arange(SIZE) % 4 == 0,
        "packed": torch.ones(SIZE * SIZE // 2, 1, dtype=torch.uint8),
        "scales": torch.ones(SIZE * SIZE // 64),
        "int8": torch.ones(SIZE, SIZE, dtype=torch.int8),
        "row_scales": torch.ones(SIZE),
    }


def branches(given: Inputs) -> None:
    """Gradients of one tensor from many sides are added up in place."""
    hidden = given["trained"] * 2
    total = sum((hidden @ given["matrix"] for _ in range(4)), start=hidden)
    backward(total, given)


def masked(given: Inputs) -> None:
    """The gradient of what a mask has chosen is put into zeros, in place."""
    backward(given["trained"][given["mask"]], given)


def parameter(given: Inputs) -> None:
    """A parameter's first gradient is kept as it is."""
    backward(given["matrix"] @ given["trained"], given)


def backward(result: torch.Tensor, given: Inputs) -> None:
    torch.autograd.backward(result, given["matrix"][: len(result)])


def types(given: Inputs) -> None:
    """An operand of another type is copied first."""
    for _ in range(2):
        given["half"] * given["matrix"]
    given["half"].clone().mul_(given["matrix"])


def expanded(given: Inputs) -> None:
    """oneDNN, where it multiplies bfloat16 on this processor, copies a weight for every row if the
    rows are no plain matrix."""
    torch.nn.functional.linear(given["rows"][:, -2:], given["half"])


def strided(given: Inputs) -> None:
    """A matrix of which neither rows nor columns are contiguous is copied first."""
    given["matrix"][:, ::2] @ given["matrix"][::2, ::2]


def formula(given: Inputs) -> None:
    """Attention whose key heads are shared is the formula as it is written, with all scores."""
    query = given["matrix"].view(1, 8, SIZE, SIZE // 8)
    key, mask = query[:, :1], torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    torch.nn.functional.scaled_dot_product_attention(query, key, key, mask)


def grouped(given: Inputs) -> None:
    """The matmuls of experts, in float32 too."""
    weights = given["matrix"].view(4, SIZE // 4, SIZE).expand(4, SIZE // 4, SIZE)
    offsets = torch.full((4,), SIZE, dtype=torch.int32)
    torch.nn.functional.grouped_mm(given["matrix"][:, : SIZE // 4], weights, offs=offsets)


def dequantized(given: Inputs) -> None:
    """A 4-bit matmul makes the whole weight."""
    torch.ops.bitsandbytes.gemm_4bit(
        given["matrix"][:2], given["packed"], [SIZE, SIZE], given["scales"], 64, "nf4"
    )


def int8(given: Inputs) -> None:
    """An int8 matmul makes integers and several float32 results."""
    values, scales, outliers = torch.ops.bitsandbytes.int8_vectorwise_quant(given["float16"], 6.0)
    torch.ops.bitsandbytes.int8_mixed_scaled_mm(
        given["matrix"], values, given["int8"], scales, given["row_scales"], outliers
    )


PROGRAMS = [
    branches,
    masked,
    parameter,
    types,
    expanded,
    strided,
    formula,
    grouped,
    dequantized,
    int8,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_sees_what_the_allocator_sees(program: Callable[[Inputs], None]) -> None:
    real = inputs()
    program(real)  # what is made only once
    real = inputs()
    measured = peak_bytes(lambda: program(real))
    assert simulated(program).peaks["all"] == pytest.approx(measured, abs=WITHIN)
    is_copied = program is not expanded or torch.bfloat16 in onednn_types()
    assert (measured > SIZE * SIZE) == is_copied


def simulated(program: Callable[[Inputs], None], *, granularity_bytes: int = 1) -> LiveBytes:
    with FakeTensorMode():
        fake = inputs()
        live = LiveBytes(
            fake.values(),
            granularity_bytes=granularity_bytes,
            true_counts={(SIZE,): SIZE // 4},
            kernels=CPU_KERNELS,
            copies_operands=True,
        )
        with live, live.phase("all"):
            program(fake)
    return live


def test_phases_have_peaks_of_their_own() -> None:
    block = SIZE * SIZE * 4
    with FakeTensorMode(), LiveBytes() as live:
        with live.phase("two"):
            both = [torch.empty(SIZE, SIZE) for _ in range(2)]
            kept = both.pop()
            del both
        with live.phase("one"):
            torch.empty(8)
        assert live.peaks == {"two": 2 * block, "one": block + 32}
        assert live.peaks_above([kept.untyped_storage()]) == {"two": block, "one": 32}
        del kept
        assert live.now_bytes == 0


def test_allocations_are_rounded_up_to_the_devices_blocks() -> None:
    def one_byte(given: Inputs) -> None:
        torch.empty(1, dtype=torch.uint8)

    assert simulated(one_byte, granularity_bytes=512).peaks["all"] == 512


def test_a_quantized_matmul_does_the_flops_of_a_dense_one() -> None:
    dense = 2 * 2 * SIZE * SIZE
    assert simulated(dequantized).flops == {"token": dense}
    assert simulated(int8).flops == {"token": 2 * SIZE**3}
