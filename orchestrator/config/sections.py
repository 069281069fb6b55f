"""SweepConfig and its sections: a sweep's file as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.space.rules import Rule
from orchestrator.space.tree import Space

ALGORITHMS = ("tpe", "random", "nsga2", "grid", "one_factor")


@dataclass(frozen=True)
class BudgetConfig:
    """How much each trial trains and is evaluated, in the task's unit (examples)."""

    train_examples: int
    eval_examples: int  # questions of the selection split that a rung evaluates
    seed: int = 0


@dataclass(frozen=True)
class SearchConfig:
    """The search algorithm and the number of distinct feasible configurations to try."""

    algorithm: Literal["tpe", "random", "nsga2", "grid", "one_factor"]
    trials: int
    seed: int
    start_with: tuple[Mapping[str, Any], ...] = ()  # run first; flat, by knob
    reference: Mapping[str, Any] = field(default_factory=dict)  # of one_factor; flat, by knob


@dataclass(frozen=True)
class SchedulerConfig:
    """The scheduler that stops trials at rungs; it compares trials with equal `within` knobs."""

    kind: Literal["asha", "median", "hyperband", "none"] = "asha"
    grace: float = 0.0625  # fraction of the budget at the first rung
    reduction: float = 4.0  # ratio between rungs; asha continues one trial of so many
    within: tuple[str, ...] = ("model", "quantization")
    min_trials: int = 3  # median: how many others must have reached the rung
    brackets: int = 2  # hyperband: number of ASHAs, each with its first rung one later


SCHEDULER_SETTINGS: Mapping[str, tuple[str, ...]] = {  # of each kind, in the file's order
    "asha": ("grace", "reduction", "within"),
    "median": ("grace", "reduction", "min_trials", "within"),
    "hyperband": ("grace", "reduction", "brackets", "within"),
}


@dataclass(frozen=True)
class LimitsConfig:
    """Limits that end a trial or the whole sweep; None: no limit."""

    sweep_hours: float | None = None  # wall time, all starts of the sweep together
    trial_hours: float | None = None  # time of one trial, all its attempts together
    silent_minutes: float = 30.0  # without a step or a heartbeat of the trial's host


@dataclass(frozen=True)
class ResourcesConfig:
    """The resources of a trial, and the hardware; None: decided from the cluster.

    `gpus`, `gpu_memory` (bytes of each) and `accelerator_type` (Ray's name) describe the GPUs, for
    a dry run also those of other machines. `memory`: bytes that a trial may use without a GPU.
    `placement`: whether small trials share a device or each trial has its own.
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
    allow_bin_weights: bool = False  # load pickled weights of bases without safetensors


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. Paths are kept as written in the file."""

    task: str
    data: Mapping[str, Any]  # the task's options
    objectives: tuple[str, ...]  # the first ranks trials and decides which are stopped
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
    """The fractions of the budget at which a trial is evaluated, ascending; the last is 1."""
    fractions = [] if scheduler.kind == "none" else [scheduler.grace]
    while fractions and fractions[-1] * scheduler.reduction < 1 - 1e-9:
        fractions.append(fractions[-1] * scheduler.reduction)
    return (*fractions, 1.0)
