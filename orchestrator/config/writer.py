"""Writes a SweepConfig as the mapping of a YAML file."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

from orchestrator.config.sections import (
    SCHEDULER_SETTINGS,
    ResourcesConfig,
    SchedulerConfig,
    SearchConfig,
    SweepConfig,
)
from orchestrator.space.constraints import render_rules
from orchestrator.space.grammar import render


def to_mapping(config: SweepConfig) -> dict[str, Any]:
    """The sweep as a YAML value, defaults included; `from_mapping` is the inverse."""
    return {
        "task": config.task,
        "data": copy.deepcopy(dict(config.data)),
        "objective": config.objective if len(config.objectives) == 1 else [*config.objectives],
        "space": render(config.space),
        "exclude": render_rules(config.exclude),
        "budget": asdict(config.budget),
        "search": _search_value(config.search),
        "scheduler": _scheduler_value(config.scheduler),
        "resources": _resources_value(config.resources),
        "execution": asdict(config.execution),
        "limits": asdict(config.limits),
    }


def _search_value(search: SearchConfig) -> dict[str, Any]:
    """Leaves out optional settings that are empty, so that files of older versions are equal."""
    value = copy.deepcopy(asdict(search))
    given = {name: value.pop(name) for name in ("start_with", "reference")}
    if given["start_with"]:
        value["start_with"] = [dict(each) for each in given["start_with"]]
    if given["reference"]:
        value["reference"] = dict(given["reference"])
    return value


def _resources_value(resources: ResourcesConfig) -> dict[str, Any]:
    """Leaves out the settings that describe hardware if they are not given."""
    value = asdict(resources)
    return {n: v for n, v in value.items() if v is not None or n not in _HARDWARE}


_HARDWARE = ("gpus", "gpu_memory", "memory", "accelerator_type")


def _scheduler_value(scheduler: SchedulerConfig) -> Any:
    if scheduler.kind == "none":
        return "none"
    settings = {name: getattr(scheduler, name) for name in SCHEDULER_SETTINGS[scheduler.kind]}
    return {scheduler.kind: {**settings, "within": list(scheduler.within)}}
