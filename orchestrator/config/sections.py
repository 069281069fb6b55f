"""SweepConfig and its sections, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.space.remainder import Rule
from orchestrator.space.tree import Space

ALGORITHMS = ("tpe", "random", "nsga2", "grid", "one_factor")


@dataclass(frozen=True)
class BudgetConfig:
    """How much each trial trains and how often it is judged; unit: the task's (examples)."""

    train_examples: int
    eval_examples: int  # questions of the selection split asked at a rung
    seed: int = 0


@dataclass(frozen=True)
class SearchConfig:
    """Who suggests configurations, and how many distinct feasible ones are tried."""

    algorithm: Literal["tpe", "random", "nsga2", "grid", "one_factor"]
    trials: int
    seed: int
    start_with: tuple[Mapping[str, Any], ...] = ()  # run first; flat, by knob
    reference: Mapping[str, Any] = field(default_factory=dict)  # of one_factor; flat, by knob


@dataclass(frozen=True)
class SchedulerConfig:
    """Who stops trials early, at the rungs, among trials alike in the knobs of `within`."""

    kind: Literal["asha", "median", "hyperband", "none"] = "asha"
    grace: float = 0.0625  # fraction of the budget at the first rung
    reduction: float = 4.0  # the ratio between rungs; asha lets one in so many go on
    within: tuple[str, ...] = ("model", "quantization")
    min_trials: int = 3  # median: so many others must have come as far
    brackets: int = 2  # hyperband: so many ASHAs, each with its first rung one later


@dataclass(frozen=True)
class LimitsConfig:
    """When a trial or the whole sweep is ended whatever it has reached; None: never."""

    sweep_hours: float | None = None  # wall time, all starts of the sweep together
    trial_hours: float | None = None  # a trial's own seconds, all its attempts together
    silent_minutes: float = 30.0  # neither a step nor a sign of life for so long


@dataclass(frozen=True)
class ResourcesConfig:
    """What a trial is given, and what there is; None: decided from the cluster.

    `gpus`, `gpu_memory` (bytes, of each) and `accelerator_type` (Ray's name for it) describe GPUs,
    here or, for a plan, elsewhere. `memory`: bytes that a trial may take where there is no GPU.
    `placement`: whether trials that are small enough share a device, or each has one alone.
    """

    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    concurrent_trials: int | None = None
    gpus: int | None = None
    gpu_memory: int | None = None
    memory: int | None = None
    accelerator_type: str | None = None
    placement: Literal["shared", "exclusive"] = "shared"


@dataclass(frozen=True)
class ExecutionConfig:
    """How trials are run."""

    checkpoint_minutes: float = 5.0
    eval_batch_size: int = 32
    max_new_tokens: int | None = None  # None: enough for the target
    allow_bin_weights: bool = False  # read pickled weights of bases that have no others


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. Paths in it stay as they were written."""

    task: str
    data: Mapping[str, Any]  # the task's options
    objectives: tuple[str, ...]  # the first is what trials are ranked and stopped by
    space: Space
    exclude: tuple[Rule, ...]
    budget: BudgetConfig
    search: SearchConfig
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)

    @property
    def objective(self) -> str:
        """The first objective."""
        return self.objectives[0]


def rungs(scheduler: SchedulerConfig) -> tuple[float, ...]:
    """Fractions of the budget at which a trial is judged, rising; the last is 1."""
    fractions = [] if scheduler.kind == "none" else [scheduler.grace]
    while fractions and fractions[-1] * scheduler.reduction < 1 - 1e-9:
        fractions.append(fractions[-1] * scheduler.reduction)
    return (*fractions, 1.0)
