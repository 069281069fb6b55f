"""Reads and checks a sweep's file; what a SweepConfig holds needs no further check.

`load_config` reads the file with its `--set` overrides; `to_mapping` and `from_mapping` keep it
in the run folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config.overrides import Override, apply_overrides
from orchestrator.config.sections import (
    ALGORITHMS,
    SCHEDULER_SETTINGS,
    BudgetConfig,
    ExecutionConfig,
    LimitsConfig,
    ResourcesConfig,
    SchedulerConfig,
    SearchConfig,
    SweepConfig,
)
from orchestrator.config.settings import (
    Faults,
    Setting,
    accelerator_type,
    names,
    options,
    parsed_size,
    read_settings,
    size,
)
from orchestrator.config.task_settings import (
    a_task,
    data_faults,
    objective_setting,
    option_faults,
    task_knob_faults,
)
from orchestrator.config.yaml_loader import read_yaml
from orchestrator.space.constraints import leaves_nothing, parse_rules
from orchestrator.space.enumeration import grid
from orchestrator.space.foreign_names import meant
from orchestrator.space.grammar import parse_space
from orchestrator.space.partial import complete
from orchestrator.space.tree import Space, knob_names
from orchestrator.space.unread import unread_knobs
from trainables.errors import InputError, did_you_mean
from trainables.spec.checks import above, at_least, between, boolean, one_of, whole


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """The sweep of a YAML file, with the `a.b=c` overrides applied.

    Raises InputError with all faults. Each message names the file, or the override that caused the
    fault, and the path of the value.
    """
    value = read_yaml(path)
    _expect_mapping(value, str(path))
    changed, applied = apply_overrides(value, overrides)
    faults = Faults()
    config = faults.catch(from_mapping, changed)
    if config is not None:
        faults.catch(_refuse_unread, config.space, value, applied)
    if config is None or faults.messages:  # else the planner says what is wrong with the data
        faults.messages += data_faults(changed.get("task"), changed.get("data"))
        raise InputError([_sourced(fault, applied, str(path)) for fault in faults.messages])
    return config


def sourced(faults: Sequence[str], path: Path, overrides: Sequence[str]) -> list[str]:
    """Faults that were found after `load_config`; those of the sections `space` and `data` name the
    file, or the override that caused them."""
    applied = apply_overrides(read_yaml(path), overrides)[1]
    return [
        _sourced(fault, applied, str(path)) if fault.startswith(("space.", "data.")) else fault
        for fault in faults
    ]


def from_mapping(value: object) -> SweepConfig:
    """The sweep of a parsed file. Raises InputError; each message starts with a path.

    Top-level keys that begin with `x-` hold what the file's anchors name, and are not read.
    """
    sections = {
        key: section
        for key, section in _expect_mapping(value, "sweep").items()
        if not str(key).startswith("x-")
    }
    faults = Faults()
    top = faults.catch(_read_top, sections)
    if top is not None and len(top["objectives"]) > 1:
        sections = {**sections, "scheduler": faults.catch(_no_stopping, sections.get("scheduler"))}
    parts: dict[str, Any] = {
        name: faults.catch(read, sections.get(name)) for name, read in _READERS.items()
    }
    if parts["space"]:
        _check_together(faults, parts)
        faults.messages += task_knob_faults(parts["space"], top["task"]) if top else []
    if faults.messages:
        raise InputError(faults.messages)
    assert top is not None
    if parts["search"].seed is None:
        parts["search"] = replace(parts["search"], seed=parts["budget"].seed)
    return SweepConfig(**top, **parts)


def _expect_mapping(value: object, where: str) -> Mapping[Any, Any]:
    if value is None:
        raise InputError(f"{where}: is empty; needs {', '.join(_KEYS)}.")
    if not isinstance(value, Mapping):
        kind = "a list" if isinstance(value, list) else f"{value!r}"
        raise InputError(f"{where}: holds {kind}; needs a mapping with {', '.join(_KEYS)}.")
    return value


def _refuse_unread(space: Space, written: Any, overrides: Sequence[Override]) -> None:
    """Raises InputError for knobs that no trial reads, unless an override of another value has
    narrowed the space so that nothing reads them any more."""
    unread = {f"space.{path}": reason for path, reason in unread_knobs(space).items()}
    alone = Faults().catch(parse_space, written.get("space")) if overrides else space
    unread_alone = {f"space.{path}" for path in unread_knobs(alone)} if alone else set()
    faults = [
        f"{path}: {reason}"
        for path, reason in unread.items()
        if path in unread_alone or any(override.made(path) for override in overrides)
    ]
    if faults:
        raise InputError(faults)


def _sourced(fault: str, overrides: Sequence[Override], file: str) -> str:
    makers = [f"--set {override.text}" for override in overrides if override.made(fault)]
    return f"{makers[-1] if makers else file}: {fault}"


def _read_top(sections: Mapping[Any, Any]) -> dict[str, Any]:
    unknown = [f"{key}: unknown key.{meant(key, _KEYS)}" for key in sections if key not in _KEYS]
    table = {
        "task": Setting(a_task),
        "data": Setting(options, {}),
        "objective": objective_setting(sections.get("task"), sections.get("data")),
    }
    faults = Faults()
    faults.messages += unknown
    own = {key: value for key, value in sections.items() if key in table}
    top = faults.catch(read_settings, own, "", table)
    faults.messages += option_faults(top["data"]) if top else []
    if faults.messages or top is None:
        raise InputError(faults.messages)
    given = top.pop("objective")
    names_ = (given,) if isinstance(given, str) else tuple(given)
    return {**top, "objectives": names_, "data": copy.deepcopy(top["data"])}


def _no_stopping(scheduler: object) -> str:
    """Returns "none". Raises InputError for any other scheduler: there are several objectives."""
    if scheduler in (None, "none"):
        return "none"
    raise InputError(
        f"scheduler: got {scheduler!r} with several objectives, where a trial that is behind in "
        "one may be ahead in another: nothing says which to stop. Use scheduler: none."
    )


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
        "start_with": Setting(_list, []),
        "reference": Setting(options, {}),
    }
    settings = copy.deepcopy(read_settings(value, "search", table))
    if settings["reference"] and settings["algorithm"] != "one_factor":
        raise InputError(
            f"search.reference: {settings['algorithm']} has none. "
            "Use search.algorithm: one_factor, or search.start_with for what is to run first."
        )
    return SearchConfig(**{**settings, "start_with": tuple(settings["start_with"])})


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else f"got {value!r}; needs a list, as [{{rank: 8}}]."


def _read_scheduler(value: object) -> SchedulerConfig:
    """Reads `none`, a scheduler's name or `{NAME: {...}}`; the default is asha."""
    if value == "none":
        return SchedulerConfig(kind="none", within=())
    written = "asha" if value is None else value
    given = {written: None} if isinstance(written, str) else written
    named = list(given.items()) if isinstance(given, Mapping) else []
    if len(named) != 1 or named[0][0] not in SCHEDULER_SETTINGS:
        kinds = ", ".join(f"{{{kind}: {{...}}}}" for kind in SCHEDULER_SETTINGS)
        raise InputError(f"scheduler: got {value!r}; needs none, a name or one of {kinds}.")
    return _checked_brackets(_read_scheduler_settings(*named[0]))


def _read_scheduler_settings(kind: Any, value: object) -> SchedulerConfig:
    checks = {
        "grace": Setting(between(0, 1), SchedulerConfig.grace),
        "reduction": Setting(above(1), SchedulerConfig.reduction),
        "min_trials": Setting(whole(1), SchedulerConfig.min_trials),
        "brackets": Setting(whole(1), SchedulerConfig.brackets),
        "within": Setting(names, list(SchedulerConfig.within)),
    }
    table = {name: checks[name] for name in SCHEDULER_SETTINGS[kind]}
    settings = read_settings(value, f"scheduler.{kind}", table)
    return SchedulerConfig(kind=kind, **{**settings, "within": tuple(settings["within"])})


def _checked_brackets(scheduler: SchedulerConfig) -> SchedulerConfig:
    """Raises InputError if the first rung of the last bracket is the whole budget."""
    last = scheduler.grace * scheduler.reduction ** (scheduler.brackets - 1)
    if scheduler.kind == "hyperband" and last >= 1 - 1e-9:
        raise InputError(
            f"scheduler.hyperband.brackets: got {scheduler.brackets}; the last one's first rung is "
            f"at {last:.3g} of the budget, which must be below 1. Lower brackets or grace."
        )
    return scheduler


def _read_resources(value: object) -> ResourcesConfig:
    table = {
        "cpus_per_trial": Setting(above(0), None),
        "gpus_per_trial": Setting(at_least(0), None),
        "concurrent_trials": Setting(whole(1), None),
        "gpus": Setting(whole(1), None),
        "gpu_memory": Setting(size, None),
        "memory": Setting(size, None),
        "accelerator_type": Setting(accelerator_type, None),
        "placement": Setting(one_of("shared", "exclusive"), ResourcesConfig.placement),
    }
    settings = read_settings(value, "resources", table)
    if settings["placement"] == "exclusive" and 0 < (settings["gpus_per_trial"] or 0) < 1:
        raise InputError(
            f"resources.placement: exclusive gives each trial a GPU alone, and "
            f"gpus_per_trial: {settings['gpus_per_trial']} a part of one. Remove one of the two."
        )
    sizes = {name: parsed_size(settings[name]) for name in ("gpu_memory", "memory")}
    return ResourcesConfig(**{**settings, **sizes})


def _read_execution(value: object) -> ExecutionConfig:
    table = {
        "checkpoint_minutes": Setting(above(0), ExecutionConfig.checkpoint_minutes),
        "eval_batch_size": Setting(whole(1), ExecutionConfig.eval_batch_size),
        "max_new_tokens": Setting(whole(1), ExecutionConfig.max_new_tokens),
        "allow_bin_weights": Setting(boolean, ExecutionConfig.allow_bin_weights),
    }
    return ExecutionConfig(**read_settings(value, "execution", table))


def _read_limits(value: object) -> LimitsConfig:
    table = {
        "sweep_hours": Setting(above(0), None),
        "trial_hours": Setting(above(0), None),
        "silent_minutes": Setting(above(0), LimitsConfig.silent_minutes),
    }
    return LimitsConfig(**read_settings(value, "limits", table))


_READERS: dict[str, Callable[[Any], Any]] = {
    "space": _read_space,
    "exclude": parse_rules,
    "budget": _read_budget,
    "search": _read_search,
    "scheduler": _read_scheduler,
    "resources": _read_resources,
    "execution": _read_execution,
    "limits": _read_limits,
}
_KEYS = ("task", "data", "objective", *_READERS)


def _check_together(faults: Faults, parts: Mapping[str, Any]) -> None:
    """Collects the faults that concern two sections."""
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
    if search and rules is not None:
        for place, given in enumerate(search.start_with):
            faults.catch(complete, space, rules, given, f"search.start_with[{place}]")
        if search.algorithm == "one_factor":
            faults.catch(complete, space, rules, search.reference, "search.reference")
    in_space = knob_names(space)
    for name in scheduler.within if scheduler else ():
        if name not in in_space and name not in SchedulerConfig.within:
            wrong = f"{name!r} is not a knob of this space.{did_you_mean(name, in_space)}"
            faults.messages.append(f"scheduler.{scheduler.kind}.within: {wrong}")
