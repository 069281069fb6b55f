"""Workload, the shape of a trial's batches, and Estimate, the memory and FLOPs that it needs.

Both are exchanged as JSON: the planner imports no torch and asks
`python -m trainables.simulation.service`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# An estimate may be lower than the measured peak by the greater of these two: the simulation leaves
# out what oneDNN allocates inside a matmul, and other small allocations.
UNDER_ALLOWANCE = 0.01  # of the measured peak
UNDER_ALLOWANCE_BYTES = 262_144


@dataclass(frozen=True)
class Workload:
    """The largest batches of a trial; lengths are in tokens and those of the longest row.

    `logit_positions`: positions of a training batch where some row has a token with a loss, and
    `loss_tokens` such tokens; by default the largest possible numbers. `accumulated`: gradients
    exist already while a micro-batch computes more.
    """

    batch_size: int
    sequence_length: int
    completion_tokens: int = 16  # of a row: those that have a loss
    logit_positions: int | None = None
    loss_tokens: int | None = None
    accumulated: bool = False
    eval_batch_size: int = 32
    eval_sequence_length: int | None = None  # default: as in training
    eval_prompt_length: int | None = None  # default: the rest of such a row
    eval_completion_tokens: int | None = None  # default: as in training
    eval_logit_positions: int | None = None
    eval_loss_tokens: int | None = None
    new_tokens: int = 32  # 0: no answer is written
    eval_answers: int | None = None  # questions of a batch of answers; default: eval_batch_size
    eval_beginning: int = 0  # tokens with which all evaluated rows begin, computed once
    eval_choice_tokens: int = 0  # of a choice that is scored after its prompt; 0: none is

    @property
    def eval_length(self) -> int:
        """The longest row of an evaluation batch."""
        return self.eval_sequence_length or self.sequence_length

    @property
    def prompt_length(self) -> int:
        """The longest prompt; by default the longest row without its completion."""
        return self.eval_prompt_length or max(1, self.eval_length - self.eval_completions)

    @property
    def answers_batch_size(self) -> int:
        """Questions of a batch of answers."""
        return self.eval_answers or self.eval_batch_size

    @property
    def eval_completions(self) -> int:
        """Completion tokens of an evaluated row."""
        return self.eval_completion_tokens or self.completion_tokens

    @property
    def positions(self) -> int:
        """Positions of a training batch whose logits are computed."""
        most = min(self.sequence_length - 1, self.batch_size * self.completion_tokens)
        return min(self.logit_positions or most, most)

    @property
    def counted(self) -> int:
        """Tokens of a training batch that have a loss."""
        most = self.batch_size * self.completion_tokens
        return min(self.loss_tokens or most, most)

    @property
    def eval_counted(self) -> int:
        """Tokens of an evaluation batch that have a loss."""
        most = self.eval_batch_size * self.eval_completions
        return min(self.eval_loss_tokens or most, most)

    @property
    def eval_positions(self) -> int:
        """Positions of an evaluation batch whose logits are computed."""
        most = min(self.eval_length - 1, self.eval_batch_size * self.eval_completions)
        return min(self.eval_logit_positions or most, most)


@dataclass(frozen=True)
class FlopRates:
    """FLOPs of one row: per token, per pair of query and key, per position with logits; and those
    of a pass over any number of rows, `fixed`.

    A row has length squared pairs: masked ones count too. A multiply-add is two FLOPs.
    """

    token: float
    pair: float
    logit: float
    fixed: float = 0.0

    def of(self, *, batch_size: int, length: int, positions: int, known: int = 0) -> float:
        """FLOPs of a batch padded to `length`, with logits at `positions` of its positions.

        `known`: the first tokens, whose keys and values are there already.
        """
        new = length - known
        per_row = self.token * new + self.pair * new * length + self.logit * positions
        return batch_size * per_row + self.fixed

    def of_generation(
        self, *, batch_size: int, prompt: int, new_tokens: int, known: int = 0
    ) -> float:
        """FLOPs of a forward pass over `prompt` tokens and of a cached step per further token."""
        steps = max(0, new_tokens - 1)
        seen = steps * prompt + steps * (steps + 1) // 2
        new = prompt - known
        tokens = self.token * (new + steps) + self.logit * new_tokens
        per_row = tokens + self.pair * (new * prompt + seen)
        return batch_size * per_row + self.fixed * (1 + steps)


@dataclass(frozen=True)
class Term:
    """A part of an estimate in bytes, and its source."""

    bytes: int
    source: str


@dataclass(frozen=True)
class Estimate:
    """The memory and FLOPs of a trial; bytes are those of torch's allocator unless said otherwise.

    `phases`: the peak of each phase, the model included. `train_memory_bytes` and
    `eval_memory_bytes` are what `train_peak_memory_bytes` and `eval_peak_memory_bytes` measure on
    a CPU. `eval_memory_bytes` excludes the optimizer's state, which stays on the device meanwhile;
    `device_memory_bytes` includes it and the constants of the device, which `terms` lists.
    `train_flops_per_step`: those of one micro-batch, without the optimizer's.
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
        """The estimate that `to_json` wrote; raises KeyError or TypeError if it is not one."""
        terms = {name: Term(**term) for name, term in value["terms"].items()}
        rates = {name: FlopRates(**value[name]) for name in ("training", "forward")}
        depths = tuple(value["depths"])
        return cls(**{**value, **rates, "terms": terms, "depths": depths})


@dataclass(frozen=True)
class TrialEstimate:
    """The estimate of a planned trial: its largest batches, their needs, and all of its FLOPs.

    `knows_lengths`: the workload uses the task's token lengths; otherwise every row has the
    greatest length that it may have, and `lengths_fault` says why.
    """

    workload: Workload
    prediction: Estimate
    train_flops: float
    eval_flops: float
    knows_lengths: bool = True
    lengths_fault: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialEstimate:
        """The value that `to_json` wrote; raises KeyError or TypeError if it is not one."""
        workload = Workload(**value["workload"])
        prediction = Estimate.from_json(value["prediction"])
        return cls(**{**value, "workload": workload, "prediction": prediction})
