"""SweepConfig: all that a sweep's file says, checked once and then trusted.

`load_config` reads the file with its `--set` overrides; `to_mapping` and `from_mapping` keep it
in the run folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.exclusions import Rule, leaves_nothing, parse_rules, render_rules
from orchestrator.grammar import parse_space, render
from orchestrator.objective import OBJECTIVES
from orchestrator.overrides import Override, apply_overrides
from orchestrator.settings import (
    Faults,
    Setting,
    names,
    options,
    read_settings,
)
from orchestrator.space import Space, grid, knob_names
from orchestrator.strict_yaml import read_yaml
from trainables.checks import above, at_least, between, one_of, whole
from trainables.errors import InputError, did_you_mean

ALGORITHMS = ("tpe", "random", "grid")


@dataclass(frozen=True)
class BudgetConfig:
    """How much each trial trains and how often it is judged; unit: the task's (examples)."""

    train_examples: int
    eval_examples: int  # questions of the selection split asked at a rung
    seed: int = 0


@dataclass(frozen=True)
class SearchConfig:
    """Who suggests configurations, and how many distinct feasible ones are tried."""

    algorithm: Literal["tpe", "random", "grid"]
    trials: int
    seed: int


@dataclass(frozen=True)
class SchedulerConfig:
    """Who stops trials early: asha, at the rungs, among trials alike in the knobs of `within`."""

    kind: Literal["asha", "none"] = "asha"
    grace: float = 0.0625  # fraction of the budget at the first rung
    reduction: float = 4.0  # one in so many goes on; also the ratio between rungs
    within: tuple[str, ...] = ("model", "quantization")


@dataclass(frozen=True)
class ResourcesConfig:
    """What a trial is given; None: decided from the cluster."""

    cpus_per_trial: float | None = None
    gpus_per_trial: float | None = None
    concurrent_trials: int | None = None


@dataclass(frozen=True)
class ExecutionConfig:
    """How trials are run."""

    checkpoint_minutes: float = 5.0
    eval_batch_size: int = 32
    max_new_tokens: int | None = None  # None: enough for the target


@dataclass(frozen=True)
class SweepConfig:
    """One sweep. Paths in it stay as they were written."""

    task: str
    data: Mapping[str, Any]  # the task's options
    objective: str
    space: Space
    exclude: tuple[Rule, ...]
    budget: BudgetConfig
    search: SearchConfig
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    execution: ExecutionConfig = field(default_factory=ExecutionConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep that a YAML file describes, with `a.b=c` overrides put in.

    Raises InputError with all that is wrong with it, each message naming the file, or the
    override that it comes from, and the place.
    """
    value = read_yaml(path)
    _expect_mapping(value, str(path))
    changed, applied = apply_overrides(value, overrides)
    try:
        return from_mapping(changed)
    except InputError as error:
        raise InputError(
            [_sourced(fault, applied, str(path)) for fault in error.messages]
        ) from None


def from_mapping(value: object) -> SweepConfig:
    """The sweep of YAML's value; raises InputError, each message starting with its path."""
    sections = _expect_mapping(value, "sweep")
    faults = Faults()
    top = faults.catch(_read_top, sections)
    parts: dict[str, Any] = {
        name: faults.catch(read, sections.get(name)) for name, read in _READERS.items()
    }
    if parts["space"]:
        _check_together(faults, parts)
    if faults.messages:
        raise InputError(faults.messages)
    assert top is not None
    if parts["search"].seed is None:
        parts["search"] = replace(parts["search"], seed=parts["budget"].seed)
    return SweepConfig(**top, **parts)


def to_mapping(config: SweepConfig) -> dict[str, Any]:
    """YAML's value for a sweep, every default written out: from_mapping gives the sweep back."""
    scheduler = asdict(config.scheduler)
    kind = scheduler.pop("kind")
    scheduler["within"] = list(config.scheduler.within)
    return {
        "task": config.task,
        "data": copy.deepcopy(dict(config.data)),
        "objective": config.objective,
        "space": render(config.space),
        "exclude": render_rules(config.exclude),
        "budget": asdict(config.budget),
        "search": asdict(config.search),
        "scheduler": "none" if kind == "none" else {kind: scheduler},
        "resources": asdict(config.resources),
        "execution": asdict(config.execution),
    }


def _expect_mapping(value: object, where: str) -> Mapping[Any, Any]:
    if value is None:
        raise InputError(f"{where}: is empty; needs {', '.join(_KEYS)}.")
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list) else f"{value!r}"
        raise InputError(f"{where}: holds {kind}; needs a mapping with {', '.join(_KEYS)}.")
    return value


def _sourced(fault: str, overrides: Sequence[Override], file: str) -> str:
    makers = [f"--set {override.text}" for override in overrides if override.made(fault)]
    return f"{makers[-1] if makers else file}: {fault}"


def _read_top(sections: Mapping[Any, Any]) -> dict[str, Any]:
    from trainables.tasks import TASKS

    unknown = [
        f"{key}: unknown key.{did_you_mean(key, _KEYS)}" for key in sections if key not in _KEYS
    ]
    table = {
        "task": Setting(one_of(*TASKS)),
        "data": Setting(options, {}),
        "objective": Setting(one_of(*OBJECTIVES), "em_acc"),
    }
    faults = Faults()
    faults.messages += unknown
    own = {key: value for key, value in sections.items() if key in table}
    top = faults.catch(read_settings, own, "", table)
    if faults.messages or top is None:
        raise InputError(faults.messages)
    return {**top, "data": copy.deepcopy(top["data"])}


def _read_space(value: object) -> Space:
    if value is None:
        raise InputError("space: missing; it says which knobs are varied, as {model: [...]}.")
    return parse_space(value)


def _read_budget(value: object) -> BudgetConfig:
    table = {
        "train_examples": Setting(whole(1)),
        "eval_examples": Setting(whole(1)),
        "seed": Setting(whole(0), 0),
    }
    return BudgetConfig(**read_settings(value, "budget", table))


def _read_search(value: object) -> SearchConfig:
    table = {
        "algorithm": Setting(one_of(*ALGORITHMS), "tpe"),
        "trials": Setting(whole(1)),
        "seed": Setting(whole(0), None),
    }
    return SearchConfig(**read_settings(value, "search", table))


def _read_scheduler(value: object) -> SchedulerConfig:
    """`none`, `asha`, or `{asha: {...}}`; nothing at all is asha with its defaults."""
    if value == "none":
        return SchedulerConfig(kind="none", within=())
    given = {"asha": None} if value in (None, "asha") else value
    if isinstance(given, Mapping) and list(given) == ["asha"]:
        table = {
            "grace": Setting(between(0, 1), SchedulerConfig.grace),
            "reduction": Setting(above(1), SchedulerConfig.reduction),
            "within": Setting(names, list(SchedulerConfig.within)),
        }
        settings = read_settings(given["asha"], "scheduler.asha", table)
        return SchedulerConfig(**{**settings, "within": tuple(settings["within"])})
    raise InputError(f"scheduler: got {value!r}; needs none or {{asha: {{...}}}}.")


def _read_resources(value: object) -> ResourcesConfig:
    table = {
        "cpus_per_trial": Setting(above(0), None),
        "gpus_per_trial": Setting(at_least(0), None),
        "concurrent_trials": Setting(whole(1), None),
    }
    return ResourcesConfig(**read_settings(value, "resources", table))


def _read_execution(value: object) -> ExecutionConfig:
    table = {
        "checkpoint_minutes": Setting(above(0), ExecutionConfig.checkpoint_minutes),
        "eval_batch_size": Setting(whole(1), ExecutionConfig.eval_batch_size),
        "max_new_tokens": Setting(whole(1), ExecutionConfig.max_new_tokens),
    }
    return ExecutionConfig(**read_settings(value, "execution", table))


_READERS: dict[str, Callable[[Any], Any]] = {
    "space": _read_space,
    "exclude": parse_rules,
    "budget": _read_budget,
    "search": _read_search,
    "scheduler": _read_scheduler,
    "resources": _read_resources,
    "execution": _read_execution,
}
_KEYS = ("task", "data", "objective", *_READERS)


def _check_together(faults: Faults, parts: Mapping[str, Any]) -> None:
    """What only shows when two sections are read side by side."""
    space, rules, search, scheduler = (
        parts[name] for name in ("space", "exclude", "search", "scheduler")
    )
    if rules and leaves_nothing(space, rules):
        faults.messages.append(
            "exclude: nothing is left: every configuration of the space matches a rule. "
            "Remove a rule or widen the space."
        )
    if search and search.algorithm == "grid":
        faults.catch(grid, space)
    in_space = knob_names(space)
    for name in scheduler.within if scheduler else ():
        if name not in in_space and name not in SchedulerConfig.within:
            wrong = f"{name!r} is not a knob of this space.{did_you_mean(name, in_space)}"
            faults.messages.append(f"scheduler.asha.within: {wrong}")
