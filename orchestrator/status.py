"""python -m orchestrator.status RUN_DIR: how a sweep stands, read from its folder only."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.failures import counts_text
from orchestrator.labels import bytes_text, number_text, percent_text, seconds_text, title
from orchestrator.progress import done_trials, resume_line, run_name, wanted_trials
from orchestrator.report_content import Block, Code, Paragraph, Report, Section, Table
from orchestrator.results import open_run, read_config, read_trials
from orchestrator.trial_result import RUNNING, TrialResult, objective, ranked
from trainables.errors import InputError
from trainables.run_folder import RunFolder

HEARTBEAT_SECONDS = 30.0  # a driver that has been silent for longer is dead


@dataclass(frozen=True)
class Driver:
    """The process that holds a sweep; `age` is the seconds since it last said so."""

    host: str
    pid: int
    age: float

    @property
    def alive(self) -> bool:
        return self.age < HEARTBEAT_SECONDS


@dataclass(frozen=True)
class Status:
    """A sweep at one moment; `wanted` is None where its configuration names no number."""

    run: RunFolder
    driver: Driver | None
    results: tuple[TrialResult, ...]
    done: int
    wanted: int | None
    metric: str
    warnings: tuple[str, ...]

    @property
    def running(self) -> list[TrialResult]:
        return [item for item in self.results if item.state == RUNNING]

    @property
    def best(self) -> TrialResult | None:
        return next(iter(ranked(self.results, self.metric)), None)

    @property
    def eta_seconds(self) -> float | None:
        """Trials left, at the mean seconds of those that are done, as many at once as now run.

        None when nothing runs, nothing is done yet or the number of trials is not known.
        """
        spent = [item.seconds["total"] for item in self.results if _took_time(item)]
        at_once = sum(item.is_trial for item in self.running)
        if not spent or not at_once or self.wanted is None:
            return None
        begun = sum(item.seconds.get("total", 0.0) for item in self.running if item.is_trial)
        left = max(0, self.wanted - self.done) * sum(spent) / len(spent) - begun
        return max(0.0, left) / at_once


def read_status(run: RunFolder, *, now: float | None = None) -> Status:
    """The sweep as its folder shows it; `now` is in unix seconds."""
    results = read_trials(run)
    config, warnings = read_config(run)
    return Status(
        run=run,
        driver=read_driver(run, now=now),
        results=tuple(results),
        done=done_trials(results),
        wanted=wanted_trials(config),
        metric=objective(config),
        warnings=(*warnings, *(text for item in results for text in item.warnings)),
    )


def read_driver(run: RunFolder, *, now: float | None = None) -> Driver | None:
    """Who holds the sweep by its lock file; None if there is none or it can't be read."""
    try:
        lock = json.loads(run.lock_file.read_text())
        age = (time.time() if now is None else now) - float(lock["heartbeat"])
        return Driver(str(lock["host"]), int(lock["pid"]), age)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def status_report(status: Status) -> Report:
    """The status as a short report for the terminal."""
    of = f" of {status.wanted}" if status.wanted is not None else ""
    text = f"{status.done}{of} trials are done: {counts_text(status.results)}."
    blocks: list[Block] = [Paragraph(text), Paragraph(_driver_text(status.driver))]
    if status.eta_seconds is not None:
        blocks.append(Paragraph(f"About {seconds_text(status.eta_seconds)} to go."))
    best = status.best
    if best is not None:
        values = _value_text(status.metric, best.metrics[status.metric])
        blocks.append(Paragraph(f"Best so far: `{best.trial_id}`, {best.label}: {values}."))
    if not (status.driver and status.driver.alive) and _unfinished(status):
        blocks += [Paragraph("To go on:"), Code(resume_line(status.run))]
    sections = [Section("Progress", blocks)]
    if status.running:
        sections.append(Section("Running", [_running_table(status.running)]))
    if status.warnings:
        sections.append(Section("Warnings", [Paragraph(text) for text in status.warnings]))
    return Report(f"Sweep {run_name(status.run)}", sections)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the status; 2 if RUN_DIR is not a run folder. Writes nothing."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.status", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a sweep: runs/NAME")
    try:
        run = open_run(parser.parse_args(arguments).run_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    status_report(read_status(run)).print()
    return 0


def _took_time(item: TrialResult) -> bool:
    return item.is_trial and item.state in ("finished", "stopped") and "total" in item.seconds


def _driver_text(driver: Driver | None) -> str:
    if driver is None:
        return "No driver holds it."
    who = f"process {driver.pid} on {driver.host}"
    if driver.alive:
        return f"A driver holds it: {who}."
    return f"No driver holds it: {who} has been silent for {seconds_text(driver.age)}."


def _unfinished(status: Status) -> bool:
    return status.wanted is None or status.done < status.wanted


def _value_text(metric: str, value: float) -> str:
    loss = metric.endswith("loss")
    return f"{title(metric)} {number_text(value) if loss else percent_text(value)}"


def _running_table(running: Sequence[TrialResult]) -> Table:
    headers = ["trial", "configuration", "examples", "step", "train loss", "eval loss", "EmAcc",
               "memory", "time"]  # fmt: skip
    return Table(headers, [_running_row(item) for item in running], words=2)


def _running_row(item: TrialResult) -> list[str]:
    metrics = item.metrics
    return [
        item.trial_id,
        item.label,
        str(item.units),
        str(item.step),
        number_text(metrics.get("train_loss")),
        number_text(metrics.get("eval_loss")),
        percent_text(metrics.get("em_acc")),
        bytes_text(metrics.get("train_peak_memory_bytes")),
        seconds_text(item.seconds.get("total")),
    ]


if __name__ == "__main__":
    sys.exit(main())
