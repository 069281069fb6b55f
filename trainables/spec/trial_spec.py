"""TrialSpec, a trial as a value, and Event, what its training reports. LIGHT.

A spec holds all that decides a trial's result; `trial_id` is a hash of exactly that. What does
not decide it (where things lie, how often to save, the generation's batch size) travels in
`execution` and stays out of the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainables.spec.states import TRIAL

FORMAT_VERSION = 2  # 2: the warm-up's first step has rate 0


@dataclass(frozen=True)
class Budget:
    """How much a trial trains and how often it is judged; unit: the task's (examples)."""

    train_examples: int
    eval_examples: int  # questions of the selection split asked at a rung
    rungs: tuple[float, ...] = (0.0625, 0.25, 1.0)  # fractions of train_examples, last is 1
    seed: int = 0  # draws those questions


@dataclass(frozen=True)
class Execution:
    """How a trial is run; only `max_new_tokens` can change its result, by cutting answers."""

    eval_batch_size: int = 32
    max_new_tokens: int = 32
    checkpoint_seconds: float = 300.0
    progress_seconds: float = 1.0
    allow_bin_weights: bool = False  # read a base's pickled weights where it has no others


@dataclass(frozen=True)
class TrialSpec:
    """One configuration of one sweep: frozen, canonical, JSON both ways.

    `knobs` is what `knobs.canonical` returns: every knob that is read, `compute_dtype` resolved.
    `model_digest` and `task_identity` stand in the id for the model's and the data's content;
    the paths in `knobs`, `model_source` and `task_options` do not count.
    """

    role: Literal["trial", "baseline"]
    knobs: Mapping[str, Any]
    model_digest: str
    task: str
    task_identity: Mapping[str, Any]  # task version, split digests, prompt digest, context, ...
    task_options: Mapping[str, Any]  # what the worker passes to tasks.make_task
    budget: Budget
    model_source: str = ""  # where the worker loads it from: an absolute folder, or a hub id
    revision: str = ""  # resolved revision of a hub model
    execution: Execution = field(default_factory=Execution)

    @property
    def trial_id(self) -> str:
        """12 hexadecimal digits: equal for equal identities only (up to a 48-bit collision)."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        """All that decides the result, and nothing else."""
        by_content = {"model", "prompt"}  # their digests count instead of their names
        budget = asdict(self.budget) if self.role == TRIAL else {}
        return {
            "format": FORMAT_VERSION,
            "role": self.role,
            "knobs": {name: value for name, value in self.knobs.items() if name not in by_content},
            "model": self.model_digest,
            "task": self.task,
            "task_identity": dict(self.task_identity),
            "budget": budget,
            "max_new_tokens": self.execution.max_new_tokens,  # a cut answer is a wrong one
        }

    @property
    def base_key(self) -> str:
        """Equal for trials that can share one loaded base on a host."""
        names = ("quantization", "double_quantization", "compute_dtype")
        parts = [self.model_digest, *(f"{name}={self.knobs.get(name)}" for name in names)]
        return "/".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {"trial_id": self.trial_id, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrialSpec:
        """The spec that `to_json` wrote; raises KeyError or TypeError if it is not one."""
        fields = {name: value[name] for name in cls.__dataclass_fields__}
        budget = dict(fields["budget"])
        budget["rungs"] = tuple(budget["rungs"])
        fields["budget"] = Budget(**budget)
        fields["execution"] = Execution(**fields["execution"])
        return cls(**fields)
