"""SweepDisplay: the sweep while it runs, as a live table, or as plain lines without a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING

from orchestrator.formatting import format_bytes, format_duration, format_metric, format_number
from trainables.spec.events import Event
from trainables.spec.metric import MetricSpec
from trainables.spec.states import FINISHED, INFEASIBLE, INTERRUPTED, STOPPED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

STARTING = "starting"
NOTES = 6  # below the live table


@dataclass
class _Running:
    label: str
    began: float
    rung: str = STARTING
    step: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)


class SweepDisplay:
    """Shows the trials of a sweep; every method may be called from any thread.

    On a terminal it shows a table of the running trials and a line with done/total, ETA and the
    best value of `metric`, the task's primary one; elsewhere one plain line for each rung, ended
    trial, message and note, without escape codes. Before `start` it shows only these two. `stop`
    may be called twice.
    """

    def __init__(
        self,
        metric: MetricSpec,
        file: IO[str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metric = metric
        self._file = sys.stdout if file is None else file
        self._clock = clock
        self._lock = threading.RLock()
        self._running: dict[str, _Running] = {}
        self._total: int | None = None
        self._done_before = self._ended = self._worked = 0
        self._began = clock()
        self._best: tuple[float, str] | None = None
        self._live: Live | None = None
        self._notes: dict[str, None] = {}

    def start(
        self, total: int | None, done: int = 0, *, best: tuple[float, str] | None = None
    ) -> None:
        """Begins to show trials: `done` of the wanted `total` (None: unknown) were done before.

        `best` is the metric's value and the label of the best of those.
        """
        with self._lock:
            self._total, self._done_before, self._best = total, done, best
            self._ended = self._worked = 0
            self._began = self._clock()
        if self._file.isatty():
            self._start_live()

    def trial_started(self, trial_id: str, label: str) -> None:
        """Shows a trial that starts; it loads its base before it reports anything."""
        with self._lock:
            self._running[trial_id] = _Running(label, self._clock())

    def trial_event(self, trial_id: str, label: str, event: Event) -> None:
        """Shows an event of a trial; its metrics are added to those of earlier events."""
        with self._lock:
            trial = self._running.setdefault(trial_id, _Running(label, self._clock()))
            trial.metrics.update(event.metrics)
            trial.step = event.step
            trial.seconds = event.seconds
            trial.rung = "-" if trial.rung == STARTING else trial.rung
            if event.kind == "rung":
                trial.rung = f"{100 * event.fraction:.3g}%"
            line = self._rung_line(trial_id, trial)
        if event.kind == "rung" and self._live is None:
            self._write(line)

    def trial_ended(
        self,
        trial_id: str,
        label: str,
        state: str,
        reason: str,
        metrics: Mapping[str, float],
        *,
        is_trial: bool = True,
    ) -> None:
        """Shows the end of a trial; infeasible ones and baselines do not count as done."""
        with self._lock:
            self._running.pop(trial_id, None)
            self._ended += is_trial and state not in (INFEASIBLE, INTERRUPTED)
            self._worked += is_trial and state in (FINISHED, STOPPED)
            value = metrics.get(self._metric.name)
            if is_trial and state == FINISHED and value is not None:
                self._best = max(self._best or (value, label), (value, label), key=self._place)
            line = f"{self._count()} {trial_id} {label}: {state}"
        values = self._values_text(metrics)
        self._write(line + (f", {values}" if values else "") + (f" ({reason})" if reason else ""))

    def message(self, text: str) -> None:
        """Prints a line that stays on the screen."""
        self._write(text)

    def note(self, text: str) -> None:
        """Prints a line, once, that also stands below the live table to the end."""
        with self._lock:
            is_new = text not in self._notes
            self._notes[text] = None
        if is_new:
            self._write(text)

    def stop(self) -> None:
        """Removes the live table; later calls print plain lines."""
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.stop()

    def __rich__(self) -> RenderableType:
        from rich.console import Group

        with self._lock:
            rows = [self._cells(key, trial) for key, trial in self._running.items()]
            summary, notes = self._summary(), [*self._notes]
            done = self._done_before + self._ended
        return Group(
            *([_table(rows, self._metric)] if rows else []),
            *_noted(notes),
            _foot(done, self._total, summary),
        )

    def _start_live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console: Console = Console(file=self._file, highlight=False)
        live = Live(self, console=console, refresh_per_second=2, transient=True)
        with self._lock:
            self._live = live
        live.start()

    def _write(self, line: str) -> None:
        with self._lock:
            live = self._live
        if live is None:
            print(line, file=self._file, flush=True)
        else:
            live.console.print(line, markup=False, soft_wrap=True)

    def _count(self) -> str:
        done = self._done_before + self._ended
        return f"[{done}/{self._total}]" if self._total is not None else f"[{done}]"

    def _summary(self) -> str:
        wanted = self._total if self._total is not None else self._done_before + self._ended
        trials = "trial" if wanted == 1 else "trials"
        parts = [f"{self._count()[1:-1]} {trials}", f"{len(self._running)} running"]
        eta = self._eta_seconds()
        if eta is not None:
            parts.append(f"about {format_duration(eta)} to go")
        if self._best is not None:
            value, label = self._best
            text = f"{self._metric.title} {format_metric(self._metric, value)}"
            parts.append(f"best {text} ({label})")
        return " · ".join(parts)

    def _place(self, best: tuple[float, str]) -> tuple[float, str]:
        return self._metric.gain(best[0]), best[1]

    def _eta_seconds(self) -> float | None:
        """Returns the seconds for the trials left, at the pace of those ended since `start`."""
        if self._total is None or not self._worked:
            return None
        left = max(0, self._total - self._done_before - self._ended)
        return (self._clock() - self._began) / self._worked * left

    def _rung_line(self, trial_id: str, trial: _Running) -> str:
        return f"{trial_id} {trial.label}: rung {trial.rung}, {self._values_text(trial.metrics)}"

    def _values_text(self, metrics: Mapping[str, float]) -> str:
        values: list[tuple[str, str, Callable[[float | None], str]]] = [
            ("train loss", "train_loss", format_number),
            ("eval loss", "eval_loss", format_number),
            (self._metric.title, self._metric.name, partial(format_metric, self._metric)),
            ("memory", "train_peak_memory_bytes", format_bytes),
        ]
        shown = (f"{name} {show(metrics[key])}" for name, key, show in values if key in metrics)
        return ", ".join(shown)

    def _cells(self, trial_id: str, trial: _Running) -> tuple[str, ...]:
        metrics = trial.metrics
        return (
            trial_id,
            trial.label,
            trial.rung,
            str(trial.step),
            format_number(metrics.get("train_loss")),
            format_number(metrics.get("eval_loss")),
            format_metric(self._metric, metrics.get(self._metric.name)),
            format_bytes(metrics.get("train_peak_memory_bytes")),
            format_duration(trial.seconds or self._clock() - trial.began),
        )


def _table(rows: list[tuple[str, ...]], metric: MetricSpec) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("trial", no_wrap=True)
    table.add_column("configuration")
    for name in ("rung", "step", "train loss", "eval loss", metric.title, "memory", "time"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _noted(notes: list[str]) -> list[RenderableType]:
    from rich.text import Text

    left = len(notes) - NOTES
    more = [f"... and {left} above"] if left > 0 else []
    return [Text(text, style="yellow") for text in [*notes[:NOTES], *more]]


def _foot(done: int, total: int | None, summary: str) -> RenderableType:
    """Returns the progress bar, if the total is known, with the summary beside it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    text = Text(summary, style="bold")
    if not total:
        return text
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=total, completed=min(done, total), width=24), text)
    return grid
