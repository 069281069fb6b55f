"""TrialSpec: a trial as a value.

A spec holds all that decides a trial's result, and `trial_id` is a hash of exactly that. What does
not decide it (paths, how often to save, the batch size of generation) is in `execution` and in the
fields that `identity` leaves out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from trainables.methods.method import Method
from trainables.methods.registry import make_method
from trainables.spec.knobs import base_knobs
from trainables.spec.states import TRIAL

FORMAT_VERSION = 2  # 2: the warm-up's first step has rate 0


@dataclass(frozen=True)
class Budget:
    """How much a trial trains and how often it is evaluated; unit: the task's (examples)."""

    train_examples: int
    eval_examples: int  # questions of the selection split that a rung asks
    rungs: tuple[float, ...] = (0.0625, 0.25, 1.0)  # fractions of train_examples; the last is 1
    seed: int = 0  # selects those questions


@dataclass(frozen=True)
class Execution:
    """How a trial is run; only `max_new_tokens` can change its result, by cutting answers."""

    eval_batch_size: int = 32
    max_new_tokens: int = 32
    checkpoint_seconds: float = 300.0
    progress_seconds: float = 1.0
    allow_bin_weights: bool = False  # load a base's pickled weights if it has no others


@dataclass(frozen=True)
class TrialSpec:
    """One configuration of one sweep: frozen, canonical, convertible to JSON and back.

    `knobs` is what `knobs.canonical` returns: every knob that is read, `compute_dtype` resolved.
    `model_digest` and `task_identity` represent the content of the model and the data in the id;
    the paths in `knobs`, `model_source` and `task_options` are not part of it.
    """

    role: Literal["trial", "baseline"]
    knobs: Mapping[str, Any]
    model_digest: str
    task: str
    task_identity: Mapping[str, Any]  # task version, split digests, prompt digest, context, ...
    task_options: Mapping[str, Any]  # what the worker passes to tasks.make_task
    budget: Budget
    model_source: str = ""  # what the worker loads: an absolute folder, or a hub id
    revision: str = ""  # the resolved revision of a hub model
    execution: Execution = field(default_factory=Execution)

    @cached_property
    def trial_id(self) -> str:
        """12 hexadecimal digits: equal for equal identities only (up to a 48-bit collision)."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        """All that decides the result, and nothing else."""
        by_content = {"model", "prompt"}  # represented by their digests
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
    def method(self) -> Method:
        """The method that the knobs name, with its hyperparameters."""
        return make_method(self.knobs)

    @property
    def base_key(self) -> str:
        """Equal for trials that can share one loaded base on a host."""
        parts = [self.model_digest, *(f"{name}={self.knobs.get(name)}" for name in base_knobs())]
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
