"""FLOPs done: a prediction's rates times the batches that ran, with their padding. LIGHT.

What an accelerator's counters would show is not asked: the same batches cost the same FLOPs under
every quantization, since a matmul with dequantized weights counts as the dense one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainables.resources.estimate import FlopRates


@dataclass(frozen=True)
class ForwardBackward:
    """One batch through the model: rows padded to `length`, logits at `positions` of them."""

    rows: int
    length: int
    positions: int

    def flops(self, rates: FlopRates) -> float:
        return rates.of(rows=self.rows, length=self.length, positions=self.positions)


@dataclass(frozen=True)
class Generation:
    """One batch of answers: prompts padded to `prompt`, `new_tokens` steps until all had ended."""

    rows: int
    prompt: int
    new_tokens: int

    def flops(self, rates: FlopRates) -> float:
        return rates.of_generation(rows=self.rows, prompt=self.prompt, new_tokens=self.new_tokens)


@dataclass(frozen=True)
class WorkRates:
    """FLOPs of a row in training (forward, backward; again forward where checkpointing does so)
    and in a forward pass alone; the optimizer's own are not counted."""

    training: FlopRates
    forward: FlopRates


class TokenRows(Protocol):
    """What `trainables.data.encoding.Encoded` tells of its rows."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]: ...

    @property
    def completions(self) -> Sequence[Sequence[int]]: ...


def rates_of(prediction: Mapping[str, Any] | None) -> WorkRates | None:
    """The rates in a trial's prediction; None where there is none, or none that can be read."""
    try:
        kinds = {name: (prediction or {})[name] for name in ("training", "forward")}
        found = {name: _rates(kind) for name, kind in kinds.items()}
    except (KeyError, TypeError, ValueError):
        return None
    return WorkRates(**found)


def batch_forward_backward(data: TokenRows, indices: Sequence[int]) -> ForwardBackward:
    """The work of the batch that `trainables.data.batches.collate` makes of these rows."""
    spans = [(len(data.prompts[at]), len(data.completions[at])) for at in indices]
    asked = {place for prompt, reply in spans for place in range(prompt, prompt + reply)}
    return ForwardBackward(rows=len(spans), length=max(map(sum, spans)), positions=len(asked))


def total_flops(work: Iterable[ForwardBackward | Generation], rates: FlopRates) -> float:
    return sum(item.flops(rates) for item in work)


def _rates(value: Mapping[str, Any]) -> FlopRates:
    return FlopRates(**{name: float(value[name]) for name in ("token", "pair", "logit")})
