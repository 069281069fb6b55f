"""python -m orchestrator.status RUN_DIR: how a sweep stands, read from its folder only."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.cli import add_run_argument
from orchestrator.formatting import (
    format_bytes,
    format_duration,
    format_metric,
    format_number,
)
from orchestrator.reporting.document import Block, Code, Paragraph, Report, Section, Table
from orchestrator.runs.lease_holder import is_alive, read_lease
from orchestrator.runs.progress import (
    done_trials,
    is_over,
    progress_text,
    resume_line,
    run_name,
    wanted_trials,
)
from orchestrator.runs.results import closed, open_run, read_config, read_metrics, read_trials
from orchestrator.runs.trial_result import RUNNING, TrialResult, ranked
from trainables.command_line import DONE, new_parser, run_command
from trainables.spec.metric import MetricSpec
from trainables.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Driver:
    """The process that holds a sweep's lease; `age` is the seconds since its last heartbeat.

    If it is `alive`, another driver is refused (`orchestrator.runs.lease`).
    """

    host: str
    pid: int
    age: float
    alive: bool


@dataclass(frozen=True)
class Status:
    """A sweep at one moment; `wanted` is None if its configuration has no number of trials."""

    run: RunFolder
    driver: Driver | None
    results: tuple[TrialResult, ...]
    done: int
    wanted: int | None
    metric: MetricSpec  # that ranks the trials
    warnings: tuple[str, ...]

    @property
    def running(self) -> list[TrialResult]:
        return [item for item in self.results if item.state == RUNNING]

    @property
    def best(self) -> TrialResult | None:
        return next(iter(ranked(self.results, self.metric)), None)

    @property
    def eta_seconds(self) -> float | None:
        """The seconds left: remaining trials, the mean time of done ones, as parallel as now.

        None if no trial runs, none is done yet or the number of trials is unknown.
        """
        spent = [item.seconds["total"] for item in self.results if _took_time(item)]
        at_once = sum(item.is_trial for item in self.running)
        if not spent or not at_once or self.wanted is None:
            return None
        begun = sum(item.seconds.get("total", 0.0) for item in self.running if item.is_trial)
        left = max(0, self.wanted - self.done) * sum(spent) / len(spent) - begun
        return max(0.0, left) / at_once


def read_status(run: RunFolder) -> Status:
    """Reads the status of the sweep from its folder."""
    results = read_trials(run)
    config, warnings = read_config(run)
    return Status(
        run=run,
        driver=read_driver(run),
        results=tuple(results),
        done=done_trials(results),
        wanted=wanted_trials(config),
        metric=read_metrics(run).ranking,
        warnings=(*warnings, *closed(run), *(text for item in results for text in item.warnings)),
    )


def read_driver(run: RunFolder) -> Driver | None:
    """The driver in the lease file, alive or not; None if the file is missing or damaged."""
    holder = read_lease(run.lock_file)
    if holder is None:
        return None
    age = time.time() - holder.get("heartbeat", 0.0)
    host, pid = str(holder.get("host", "?")), int(holder.get("pid", -1))
    return Driver(host, pid, age, alive=is_alive(holder))


def status_report(status: Status) -> Report:
    """The status as a short report."""
    text = progress_text(status.run, status.results, status.wanted)
    blocks: list[Block] = [Paragraph(text), Paragraph(_driver_text(status.driver))]
    if status.eta_seconds is not None:
        blocks.append(Paragraph(f"About {format_duration(status.eta_seconds)} to go."))
    best = status.best
    if best is not None:
        metric = status.metric
        values = f"{metric.title} {format_metric(metric, best.metrics[metric.name])}"
        blocks.append(Paragraph(f"Best so far: `{best.trial_id}`, {best.label}: {values}."))
    is_driven = status.driver is not None and status.driver.alive
    if not is_driven and not is_over(status.run, status.results, status.wanted):
        blocks += [Paragraph("To go on:"), Code(resume_line(status.run))]
    sections = [Section("Progress", blocks)]
    if status.running:
        sections.append(Section("Running", [_running_table(status.running)]))
    if status.warnings:
        sections.append(Section("Warnings", [Paragraph(text) for text in status.warnings]))
    return Report(f"Sweep {run_name(status.run)}", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the status; 2 if RUN_DIR is not a run folder. Writes nothing."""
    parser = new_parser("orchestrator.status", description=str(__doc__))
    add_run_argument(parser)
    return run_command(lambda: _print_status(parser.parse_args(arguments).run_dir), prefix="")


def _print_status(run_dir: str) -> int:
    status_report(read_status(open_run(run_dir))).print()
    return DONE


def _took_time(item: TrialResult) -> bool:
    return item.is_trial and item.state in ("finished", "stopped") and "total" in item.seconds


def _driver_text(driver: Driver | None) -> str:
    if driver is None:
        return "No driver holds it."
    who = f"process {driver.pid} on {driver.host}"
    if driver.alive:
        return f"A driver holds it: {who}."
    return f"No driver holds it: {who} last said so {format_duration(driver.age)} ago."


def _running_table(running: Sequence[TrialResult]) -> Table:
    headers = ["trial", "configuration", "examples", "step", "train loss", "eval loss",
               running[0].primary.title, "memory", "time"]  # fmt: skip
    return Table(headers, [_running_row(item) for item in running], words=2)


def _running_row(item: TrialResult) -> list[str]:
    metrics = item.metrics
    return [
        item.trial_id,
        item.label,
        str(item.units),
        str(item.step),
        format_number(metrics.get("train_loss")),
        format_number(metrics.get("eval_loss")),
        format_metric(item.primary, item.value()),
        format_bytes(metrics.get("train_peak_memory_bytes")),
        format_duration(item.seconds.get("total")),
    ]


if __name__ == "__main__":
    sys.exit(main())
