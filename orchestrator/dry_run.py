"""What a sweep would do, in words, without doing it."""

from __future__ import annotations

from orchestrator.config.sections import SweepConfig
from orchestrator.plan import Planner, is_hub_id, rungs
from orchestrator.space.constraints import cells, count, idle_rules
from orchestrator.space.one_factor import one_factor
from trainables.storage.run_folder import RunFolder


def describe(planner: Planner, run: RunFolder) -> str:
    """How many trials, over which cells (model x quantization x method), which are excluded."""
    config = planner.config
    size = count(config.space, config.exclude)
    configurations = "no end of" if size is None else str(size)
    reach = _reach(config, size)
    trials = config.search.trials if reach is None else min(config.search.trials, reach)
    judged = ", ".join(f"{fraction:.4g}" for fraction in rungs(config.scheduler))
    all_cells = cells(config.space, config.exclude)
    lines = [
        f"Sweep {run.path.name} in {run.path}",
        f"  {trials} trials of {configurations} configurations, by {config.search.algorithm}",
        f"  each trains on {config.budget.train_examples} examples of task {config.task}; "
        f"judged at {judged} of that; early stopping: {config.scheduler.kind}",
        "  cells (model x quantization x method):",
    ]
    for cell in all_cells:
        left = cell.configurations - cell.excluded
        note = f"{left} configurations" if left else "excluded"
        if left and cell.excluded:
            note += f", {cell.excluded} excluded"
        lines.append(f"    {cell.model}  {cell.quantization}  {cell.method}: {note}")
    if size is None:
        lines.append("  (a continuous range counts once)")
    baselines = {str(planner.baseline_knobs(found)) for found in planner.cell_configurations()}
    lines.append(f"  and {len(baselines)} untrained baselines, outside the count")
    hub = sorted({str(cell.model) for cell in all_cells if is_hub_id(str(cell.model))})
    lines += [f"  {model} is no folder here: the hub will be asked for it" for model in hub]
    lines += [f"  note: {note}" for note in idle_rules(config.space, config.exclude)]
    lines.append("Nothing was run.")
    return "\n".join(lines)


def _reach(config: SweepConfig, size: int | None) -> int | None:
    """How many configurations the algorithm can come to; None: no end of them."""
    if config.search.algorithm != "one_factor":
        return size
    return sum(1 for _ in one_factor(config.space, config.exclude, config.search.reference))
