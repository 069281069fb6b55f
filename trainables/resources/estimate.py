"""Workload, the shape of a trial's work, and Prediction, what a simulation says of it. LIGHT.

Both go through JSON: whoever plans asks `python -m trainables.simulation.estimate` and imports no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# A prediction may be lower than what the allocator sees by the greater of these two: what oneDNN
# takes for itself inside a matmul, and other small things that no simulation follows.
UNDER_ALLOWANCE = 0.01  # of what the allocator sees
UNDER_ALLOWANCE_BYTES = 262_144


@dataclass(frozen=True)
class Workload:
    """The largest batches of a trial; lengths in tokens, those of the longest row.

    `logit_positions`: positions of a training batch where some row has a completion token; by
    default as many as there can be. `accumulated`: gradients are there already while a
    micro-batch makes more.
    """

    batch_size: int
    sequence_length: int
    completion_tokens: int = 16  # of a row
    logit_positions: int | None = None
    accumulated: bool = False
    eval_batch_size: int = 32
    eval_sequence_length: int | None = None  # by default that of training
    eval_prompt_length: int | None = None  # by default the rest of such a row
    eval_completion_tokens: int | None = None  # by default as many as in training
    eval_logit_positions: int | None = None
    new_tokens: int = 32

    @property
    def eval_length(self) -> int:
        return self.eval_sequence_length or self.sequence_length

    @property
    def prompt_length(self) -> int:
        """The longest prompt; if it isn't given, the longest row without its completion."""
        return self.eval_prompt_length or max(1, self.eval_length - self.eval_completions)

    @property
    def eval_completions(self) -> int:
        """Completion tokens of a row that is judged."""
        return self.eval_completion_tokens or self.completion_tokens

    @property
    def positions(self) -> int:
        most = min(self.sequence_length - 1, self.batch_size * self.completion_tokens)
        return min(self.logit_positions or most, most)

    @property
    def eval_positions(self) -> int:
        most = min(self.eval_length - 1, self.eval_batch_size * self.eval_completions)
        return min(self.eval_logit_positions or most, most)


@dataclass(frozen=True)
class FlopRates:
    """FLOPs of one row: per token, per pair of a query and a key (so times the length squared, all
    pairs counted), per position whose logits are computed. A multiply and an add are two."""

    token: float
    pair: float
    logit: float

    def of(self, *, rows: int, length: int, positions: int) -> float:
        """FLOPs of a batch padded to `length`, with logits at `positions` of its positions."""
        return rows * (self.token * length + self.pair * length**2 + self.logit * positions)

    def of_generation(self, *, rows: int, prompt: int, new_tokens: int) -> float:
        """FLOPs of a forward pass over `prompt` and of a step with a cache for each later token."""
        steps = max(0, new_tokens - 1)
        seen = steps * prompt + steps * (steps + 1) // 2
        tokens = self.token * (prompt + steps) + self.logit * new_tokens
        return rows * (tokens + self.pair * (prompt**2 + seen))


@dataclass(frozen=True)
class Term:
    """A number of bytes that goes into a prediction, by name, and where it is known from."""

    bytes: int
    source: str


@dataclass(frozen=True)
class Estimate:
    """What a trial needs. Bytes as the allocator counts them, but for what `terms` sets apart.

    `phases`: in each phase what lives at once, with the model. `train_memory_bytes` and
    `eval_memory_bytes` are what `train_peak_memory_bytes` and `eval_peak_memory_bytes` measure on
    a CPU: an evaluation counts without the optimizer's state, which stays on the device meanwhile
    (`device_memory_bytes` counts it, and the device's constant). `train_flops_per_step`: of one
    micro-batch; the optimizer's own are not counted.
    """

    train_memory_bytes: int
    eval_memory_bytes: int
    base_memory_bytes: int
    device_memory_bytes: int
    phases: dict[str, int]
    terms: dict[str, Term]
    train_flops_per_step: float
    train_flops_per_token: float
    eval_flops_per_batch: float
    training: FlopRates
    forward: FlopRates
    depths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Estimate:
        """The prediction that `to_json` wrote; raises KeyError or TypeError if it is not one."""
        terms = {name: Term(**term) for name, term in value["terms"].items()}
        rates = {name: FlopRates(**value[name]) for name in ("training", "forward")}
        depths = tuple(value["depths"])
        return cls(**{**value, **rates, "terms": terms, "depths": depths})


@dataclass(frozen=True)
class TrialEstimate:
    """A trial as planned: its largest batches, what they need, and the FLOPs of all of it.

    `knows_lengths`: the work is that of the task's real token lengths; else every row was taken
    to be as long as it may be.
    """

    workload: Workload
    prediction: Estimate
    train_flops: float
    eval_flops: float
    knows_lengths: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialEstimate:
        """What `to_json` wrote; raises KeyError or TypeError if it is not one."""
        workload = Workload(**value["workload"])
        prediction = Estimate.from_json(value["prediction"])
        return cls(**{**value, "workload": workload, "prediction": prediction})
