"""FLOPs that were done: an estimate's rates times the batches that ran, padding included.

Hardware counters are not used. The same batches have the same FLOPs under every quantization: a
matmul with dequantized weights counts as a dense one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from typing import Any, Protocol

from trainables.resources.estimate import FlopRates


@dataclass(frozen=True)
class ForwardBackward:
    """One batch in a pass: rows padded to `length`, with logits at `positions` positions. The
    keys and values of the first `known` tokens are there already; `loss_tokens` of its tokens have
    a loss."""

    batch_size: int
    length: int
    positions: int
    known: int = 0
    loss_tokens: int = field(default=0, compare=False)

    def flops(self, rates: FlopRates) -> float:
        return rates.of(
            batch_size=self.batch_size,
            length=self.length,
            positions=self.positions,
            known=self.known,
        )


@dataclass(frozen=True)
class Generation:
    """One batch of answers: prompts padded to `prompt`, `new_tokens` steps until all have ended.
    The keys and values of the first `known` tokens are there already."""

    batch_size: int
    prompt: int
    new_tokens: int
    known: int = 0

    def flops(self, rates: FlopRates) -> float:
        return rates.of_generation(
            batch_size=self.batch_size,
            prompt=self.prompt,
            new_tokens=self.new_tokens,
            known=self.known,
        )


@dataclass(frozen=True)
class WorkRates:
    """The rates of training and of a forward pass alone.

    Training is a forward and a backward pass, and with gradient checkpointing another forward pass;
    the optimizer's FLOPs are not counted.
    """

    training: FlopRates
    forward: FlopRates


class TokenRows(Protocol):
    """The rows of a `trainables.data.encoding.Encoded`, as token ids."""

    def length(self, index: int) -> int: ...

    def counted(self, index: int) -> Sequence[range]: ...

    def counted_tokens(self, indices: Sequence[int]) -> int: ...


def rates_of(estimate: Mapping[str, Any] | None) -> WorkRates | None:
    """The rates in a trial's estimate, or None if there is none or it cannot be read."""
    try:
        kinds = {name: (estimate or {})[name] for name in ("training", "forward")}
        found = {name: _rates(kind) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError):
        return None
    return WorkRates(**found)


def batch_forward_backward(
    data: TokenRows, indices: Sequence[int], *, known: int = 0
) -> ForwardBackward:
    """The pass of the batch that `trainables.data.batches.collate` makes of these rows."""
    with_logits = {at for index in indices for span in data.counted(index) for at in span}
    return ForwardBackward(
        batch_size=len(indices),
        length=max(map(data.length, indices)),
        positions=len(with_logits),
        known=known,
        loss_tokens=data.counted_tokens(indices),
    )


def choice_passes(
    prompts: Sequence[int], choices: Sequence[Sequence[int]], *, known: int = 0
) -> list[ForwardBackward]:
    """The passes of a batch whose choices are scored after its prompts, from lengths in tokens:
    over the prompts without their last tokens, then with these over all first choices, and so on.
    """
    rows, before = len(prompts), max(prompts) - 1
    longest = [max(lengths) for lengths in zip_longest(*choices, fillvalue=0)]
    return [
        ForwardBackward(rows, before, 1, known),
        *(ForwardBackward(rows, before + length, length, before) for length in longest),
    ]


def work_to_json(work: ForwardBackward | Generation) -> dict[str, int]:
    """The fields of a batch, by which `work_from_json` knows its kind."""
    return asdict(work)


def work_from_json(value: Mapping[str, int]) -> ForwardBackward | Generation:
    """The batch that `work_to_json` wrote; raises TypeError if it is none."""
    return Generation(**value) if "new_tokens" in value else ForwardBackward(**value)


def total_flops(work: Iterable[ForwardBackward | Generation], rates: FlopRates) -> float:
    """The sum of the FLOPs of these batches."""
    return sum(item.flops(rates) for item in work)


def _rates(value: Mapping[str, Any]) -> FlopRates:
    rates = {name: float(value[name]) for name in ("token", "pair", "logit")}
    return FlopRates(**rates, fixed=float(value.get("fixed", 0.0)))
