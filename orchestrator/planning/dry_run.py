"""The dry run: what a sweep would do and need, in words."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.config.sections import SweepConfig, rungs
from orchestrator.formatting import counted, in_words
from orchestrator.planning.forecast import Forecast
from orchestrator.planning.forecaster import Forecaster, known_config
from orchestrator.planning.one_factor_plan import REFERENCE, PlannedTrial, one_factor_plan
from orchestrator.planning.planned_device import ASSUMED_UTILISATION, PlannedDevice
from orchestrator.planning.planner import Planner
from orchestrator.planning.representatives import Representatives, representatives
from orchestrator.planning.sources import is_hub_id
from orchestrator.space.constraints import Cell, cells, count, idle_rules
from trainables.spec.knobs import KNOBS
from trainables.spec.states import FINISHED, TRIAL
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.run_folder import RunFolder


def describe(planner: Planner, run: RunFolder) -> str:
    """The number of trials, the cells (model x quantization x method), and what is excluded."""
    config = planner.config
    size, plan = count(config.space, config.exclude), one_factor_plan(config)
    of = "unlimited configurations" if size is None else counted(size, "configuration")
    trials = counted(_planned_trials(config, size, plan), "trial")
    judged = ", ".join(f"{fraction:.4g}" for fraction in rungs(config.scheduler))
    all_cells = cells(config.space, config.exclude)
    lines = [
        f"Sweep {run.path.name} in {run.path}",
        f"  {trials} of {of}, by {config.search.algorithm}",
        f"  each trains on {counted(config.budget.train_examples, 'example')} of task "
        f"{config.task}; judged at {judged} of that; early stopping: {config.scheduler.kind}",
        "  cells (model x quantization x method):",
    ]
    for cell in all_cells:
        note = _cell_note(cell, plan)
        lines.append(f"    {cell.model}  {cell.quantization}  {cell.method}: {note}")
    if size is None:
        lines.append("  (a continuous range counts once)")
    if plan:
        lines.append(f"  the trials, each but the first by how it differs from {REFERENCE}:")
        lines += [f"    {trial.name}" for trial in plan]
    baselines = {str(planner.baseline_knobs(found)) for found in planner.cell_configurations()}
    untrained = counted(len(baselines), "untrained baseline")
    lines.append(f"  and {untrained}, outside the count")
    hub = sorted({str(cell.model) for cell in all_cells if is_hub_id(str(cell.model))})
    lines += [f"  {model} is no folder here: the hub will be asked for it" for model in hub]
    lines += [f"  note: {note}" for note in idle_rules(config.space, config.exclude)]
    lines.append("Nothing was run.")
    return "\n".join(lines)


def _cell_note(cell: Cell, plan: Sequence[PlannedTrial] | None) -> str:
    left = cell.configurations - cell.excluded
    if not left:
        return "excluded"
    of = f", {cell.excluded} excluded" if cell.excluded else ""
    note = f"{counted(left, 'configuration')}{of}"
    if plan is None:
        return note
    name = (cell.model, cell.quantization, cell.method)
    return f"{counted(sum(trial.cell == name for trial in plan), 'trial')} of {note}"


def _planned_trials(
    config: SweepConfig, size: int | None, plan: Sequence[PlannedTrial] | None
) -> int:
    """How many trials the sweep runs at most; `size` is the space's, None if it has no end."""
    reach = size if plan is None else len(plan)
    return config.search.trials if reach is None else min(config.search.trials, reach)


def predicted_lines(
    planner: Planner, device: PlannedDevice, forecaster: Forecaster, *, storage: Path
) -> Iterator[str]:
    """Lines for each cell, each as soon as its forecast is made; last, those for all trials."""
    capacity = device.capacity
    size = in_words(capacity.bytes)
    count = f"{capacity.devices} x " if capacity.devices > 1 else ""
    yield f"Predicted for {count}{size} ({capacity.source}), {planner.device['compute_dtype']}:"
    told: list[_Told] = []
    for each in _told(planner, forecaster):
        yield each.line
        told.append(each)
    estimates = [each.forecast.estimate for each in told if each.forecast is not None]
    unknown = {found.lengths_fault: None for found in estimates if not found.knows_lengths}
    for why in unknown:
        yield (
            f"  the task could not be tokenized here ({why}): every row is taken to be as long as "
            "sequence_length allows"
        )
    for name, source in planner.models.items():
        if not source.has_weights:
            yield f"  {name} has no weights: it can be planned for, and not trained"
    yield from _hours(planner, device, told, storage)


@dataclass(frozen=True)
class _Told:
    """A line of the plan; if it is about a trial, with its cell, and its forecast if there is one.

    `is_refused`: the sweep would not launch that trial.
    """

    line: str
    cell: tuple[str, str, str] | None = None
    forecast: Forecast | None = None
    is_refused: bool = False


def _told(planner: Planner, forecaster: Forecaster) -> Iterator[_Told]:
    """Lines for every trial if all are known, else for some of each cell."""
    plan = one_factor_plan(planner.config)
    if plan is not None:
        for trial in plan:
            spec = planner.spec(trial.configuration)
            told = _of_trial(spec, planner, forecaster)
            yield replace(told, line=f"  {trial.name}: {told.line}", cell=trial.cell)
        return
    for cell, found in representatives(planner.config).items():
        yield _Told("  " + "  ".join(cell))
        yield from (replace(told, cell=cell) for told in _of_cell(planner, forecaster, found))


def _of_cell(planner: Planner, forecaster: Forecaster, cell: Representatives) -> Iterator[_Told]:
    seen: list[Any] = []
    named = {"typical": cell.typical, "smallest": cell.smallest, "largest": cell.largest}
    for name, configuration in named.items():
        spec = planner.spec(configuration)
        shape = {knob: spec.knobs.get(knob) for knob in _shown_knobs()}
        if shape in seen:
            continue
        seen.append(shape)
        told = _of_trial(spec, planner, forecaster)
        yield replace(told, line=f"    {name:8}  {told.line}  [{_knobs(shape)}]")


def _of_trial(spec: TrialSpec, planner: Planner, forecaster: Forecaster) -> _Told:
    refused = planner.known_rejection(spec)
    forecast = None if refused else forecaster.of(spec)
    words = refused or _words(forecast, forecaster) or _why_unpredicted(spec)
    does_not_fit = forecast is not None and forecast.refusal is not None
    return _Told(words, forecast=forecast, is_refused=refused is not None or does_not_fit)


def _why_unpredicted(spec: TrialSpec) -> str:
    if known_config(spec) is not None or Path(spec.model_source).is_absolute():
        return "can't be predicted"
    fetch = f"hf download {spec.model_source} config.json"
    return (
        f"can't be predicted: the config.json of {spec.model_source} is not in the hub's cache of "
        f"this machine, and --dry-run does not ask the hub ({fetch} fetches it)"
    )


def _shown_knobs() -> list[str]:
    places = {name: row.plan_place for name, row in KNOBS.items() if row.plan_place is not None}
    return sorted(places, key=lambda name: places[name])


def _words(forecast: Forecast | None, forecaster: Forecaster) -> str:
    if forecast is None:
        return ""
    estimate = forecast.estimate
    flops = f"train {estimate.train_flops:.3g} + eval {estimate.eval_flops:.3g} FLOPs"
    if forecast.refusal is not None:
        return f"does not fit: {forecast.refusal} {flops}"
    share = ""
    if forecaster.capacity is not None:
        share = f" ({forecast.device_memory_bytes / forecaster.capacity.bytes:.0%} of the device)"
    return (
        f"{in_words(forecast.device_memory_bytes)}{share}: training "
        f"{in_words(forecast.train_memory_bytes)}, evaluation "
        f"{in_words(forecast.eval_memory_bytes)}; {flops}"
    )


def _knobs(shape: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in shape.items() if value is not None)


def _hours(
    planner: Planner, device: PlannedDevice, told: Sequence[_Told], storage: Path
) -> Iterator[str]:
    able = [each for each in told if each.cell is not None and not each.is_refused]
    estimates = [each.forecast.estimate for each in able if each.forecast is not None]
    if not estimates:
        return
    trials = _launched_trials(planner.config, able)
    total = trials * statistics.fmean(found.train_flops + found.eval_flops for found in estimates)
    of = ", of those that are not refused" if any(each.is_refused for each in told) else ""
    yield f"  {counted(trials, 'trial')} that none stops early{of}: about {total:.2g} FLOPs"
    name = str(planner.device["device"])
    measured = measured_flops_per_second(storage, device=name)
    if measured is not None:
        hours = total / measured / 3600
        yield f"  about {hours:.2g} device hours at the {measured:.2g} FLOP/s measured on {name}"
    elif device.peak_flops is not None:
        hours = total / (device.peak_flops * ASSUMED_UTILISATION) / 3600
        yield (
            f"  about {hours:.2g} device hours if {ASSUMED_UTILISATION:.0%} of {name}'s "
            f"{device.peak_flops / 1e12:.0f} TFLOP/s are reached: assumed, not measured"
        )
    else:
        yield f"  device hours: unknown, nothing has been measured on {name}"


def _launched_trials(config: SweepConfig, able: Sequence[_Told]) -> int:
    """How many trials the sweep launches at most: none of a cell of which nothing is `able`."""
    if one_factor_plan(config) is not None:
        return len(able)
    names = {each.cell for each in able}
    left = sum(
        cell.configurations - cell.excluded
        for cell in cells(config.space, config.exclude)
        if (cell.model, cell.quantization, cell.method) in names
    )
    size = count(config.space, config.exclude)
    return _planned_trials(config, None if size is None else left, None)


_MOST_READ = 200  # trials of each run


def measured_flops_per_second(storage: Path, *, device: str) -> float | None:
    """The median over finished trials that had a device of this name alone; None without one."""
    found = list(_throughputs(storage, device)) if storage.is_dir() else []
    return statistics.median(found) if found else None


def _throughputs(storage: Path, device: str) -> Iterator[float]:
    runs = sorted(place for place in storage.iterdir() if (place / "trials").is_dir())
    for place in runs:
        for folder in list(RunFolder(place).trials())[-_MOST_READ:]:
            summary = folder.summary() or {}
            metrics = summary.get("metrics", {})
            if summary.get("state") != FINISHED or summary.get("role") != TRIAL:
                continue
            if summary.get("provenance", {}).get("device") != device:
                continue
            flops = (metrics.get("train_flops") or 0) + (metrics.get("eval_flops") or 0)
            seconds = metrics.get("device_seconds") or 0
            if flops > 0 and seconds > 0 and not metrics.get("device_shared"):
                yield flops / seconds
