"""Sweeps that are disturbed from outside: a test starts a driver, kills or interrupts it at a
condition on disk, resumes the sweep, and checks what must hold afterwards.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tests.orchestrator import tiny_sweep

MARK = "DISTURBED_SWEEP"  # environment variable that identifies the processes of a test
MARGIN = 5  # factor on every time limit, because machines do other work too
DONE = ("finished", "stopped", "failed")
Finished = subprocess.CompletedProcess[str]
Condition = Callable[["Place", float], bool]  # gets the time since which the driver has the lease
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
CHANCES = 5
SECONDS_FOR_A_LINE = 0.5  # a host outlives its driver, and logs an event after it has saved


@dataclass(frozen=True)
class Place:
    """The files of one sweep: its space, its storage, and its state on disk while it runs."""

    space: Path
    storage: Path
    options: Sequence[str] = ()
    predicts: bool = False  # a simulator runs beside the hosts, as where a user gives no option

    @property
    def run(self) -> Path:
        return self.storage / self.space.stem

    @property
    def database(self) -> Path:
        return self.storage / "mlflow.db"

    @property
    def trials(self) -> list[Path]:
        return [spec.parent for spec in self.run.glob("trials/*/spec.json")]

    @property
    def state(self) -> dict[str, Any]:
        return read(self.run / "sweep.json")

    def begun(self, since: float) -> list[Path]:
        """The trials that a host has started or resumed after `since`."""
        return [folder for folder in self.trials if written(folder / "owner.json") > since]

    def telling(self, since: float) -> list[Path]:
        """The trials of `begun` that have logged a step since then and have not ended."""
        return [
            folder
            for folder in self.begun(since)
            if not (folder / "summary.json").exists()
            and written(folder / "worker.log") > written(folder / "owner.json")
            and any(logged_steps((folder / "worker.log").read_text()))  # a baseline has no steps
        ]

    def summaries(self) -> dict[str, dict[str, Any]]:
        return tiny_sweep.summaries(self.run)

    def environment(self) -> dict[str, str]:
        return {**tiny_sweep.environment(), MARK: str(self.storage)}

    def command(self) -> list[str]:
        return tiny_sweep.command(self.space, self.storage, *self.options, predicts=self.predicts)


@dataclass
class Seen:
    """The state of a sweep at a kill, which every later state must preserve."""

    at: float = field(default_factory=time.time)
    ended: dict[str, int] = field(default_factory=dict)  # mtime_ns of summaries
    # The others are of trials that have not ended.
    saved_steps: dict[str, int] = field(default_factory=dict)  # step of the last checkpoint
    logged_bytes: dict[str, int] = field(default_factory=dict)  # size of worker.log
    lost_steps: dict[str, int] = field(default_factory=dict)  # logged after the last checkpoint
    lost_seconds: dict[str, float] = field(default_factory=dict)  # training since then, as logged
    step_seconds: dict[str, float] = field(default_factory=dict)  # training seconds per step
    saved_at: dict[str, float] = field(default_factory=dict)  # time of the last checkpoint

    def __str__(self) -> str:
        saved = sum(step > 0 for step in self.saved_steps.values())
        return (
            f"{len(self.ended)} trials had ended, {len(self.saved_steps)} had not, {saved} of them "
            f"with a checkpoint; lost at most {max(self.lost_seconds.values(), default=0.0):.2f} s "
            f"and {max(self.lost_steps.values(), default=0)} steps of one"
        )


@contextmanager
def driver(place: Place) -> Iterator[subprocess.Popen[str]]:
    """Starts a driver and kills it at the end; its child processes live on (see `nothing_left`)."""
    with driver_of(place.command(), place.environment()) as process:
        yield process


@contextmanager
def driver_of(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """As `driver`, for any command."""
    process = subprocess.Popen(
        ["env", "--default-signal=INT,HUP", *command],  # also where `nohup` runs the tests
        cwd=tiny_sweep.REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def nothing_left(place: Place) -> Iterator[None]:
    """Kills, at the end, all processes that the drivers of a sweep have started, to the last."""
    try:
        yield
    finally:
        while pids := left(place):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)


def left(place: Place) -> list[int]:
    """The ids of living processes that the drivers of a sweep have started."""
    mark = f"{MARK}={place.storage}\0"
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and mark in _environment(entry)
    ]


class BusyMachineError(Exception):
    """Ray did not start within its own limit of 30 seconds, because the machine is busy."""


def again_if_busy(run: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Repeats `run` up to CHANCES times while it raises BusyMachineError."""

    @functools.wraps(run)
    def with_more_chances(*given: Arguments.args, **named: Arguments.kwargs) -> Result:
        for _ in range(CHANCES - 1):
            with suppress(BusyMachineError):
                return run(*given, **named)
        return run(*given, **named)

    return with_more_chances


def until(process: subprocess.Popen[str], condition: Callable[[], bool], *, seconds: float) -> None:
    """As `wait`, for a driver that must reach the condition."""
    if not wait(process, condition, seconds=seconds):
        process.kill()
        _refuse_busy(*process.communicate())
        raise AssertionError("the driver did not get there")


def at_work(place: Place, process: subprocess.Popen[str]) -> float | None:
    """The time when this driver took the lease; None before one of its hosts has started a trial.

    Files that are older than the lease are those of an earlier driver.
    """
    lease = read(place.run / "driver.lock")
    since = float(lease.get("taken", 0.0))
    return since if lease.get("pid") == process.pid and place.begun(since) else None


def reached(
    place: Place, process: subprocess.Popen[str], condition: Condition, *, seconds: float
) -> bool:
    """As `wait`, for a driver that is at work; False only if it ended before, with exit code 0."""

    def holds() -> bool:
        since = at_work(place, process)
        return since is not None and condition(place, since)

    if wait(process, holds, seconds=seconds):
        return True
    assert process.poll() is not None, "the driver neither got there nor ended"
    output, errors = process.communicate()
    if process.returncode:
        _refuse_busy(output, errors)
    assert process.returncode == 0, output + errors
    return False


def _refuse_busy(output: str, errors: str) -> None:
    if "timed out during startup" in errors:
        raise BusyMachineError(errors)
    print(output, errors)


@again_if_busy
def left_alone(place: Place, *, seconds: float) -> Finished:
    """Runs an undisturbed driver, which must end with exit code 0."""
    with driver(place) as process:
        output, errors = process.communicate(timeout=seconds)
    if process.returncode != 0:
        _refuse_busy(output, errors)
    assert process.returncode == 0, output + errors
    assert "Traceback" not in output + errors
    assert "Best" in output
    return Finished(process.args, process.returncode, output, errors)


def wait(process: subprocess.Popen[str], condition: Callable[[], bool], *, seconds: float) -> bool:
    """Polls the condition until it holds; False if the driver ends or the time passes before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return False


def look(place: Place) -> Seen:
    """The state of the sweep now."""
    seen = Seen()
    for folder in place.trials:
        try:
            seen.ended[folder.name] = (folder / "summary.json").stat().st_mtime_ns
        except FileNotFoundError:
            _look_at_unfinished(seen, folder)
    time.sleep(SECONDS_FOR_A_LINE)
    for name in seen.saved_steps:
        log = place.run / "trials" / name / "worker.log"
        seen.logged_bytes[name] = log.stat().st_size if log.exists() else 0
    return seen


def _look_at_unfinished(seen: Seen, folder: Path) -> None:
    name, log = folder.name, folder / "worker.log"
    saved, saved_seconds, seen.saved_at[name] = _last_checkpoint(folder)
    told = log.read_text() if log.exists() else ""
    seen.saved_steps[name] = saved
    seen.lost_steps[name] = max([saved, *logged_steps(told)]) - saved
    trained, step = trained_seconds(folder), read(folder / "progress.json").get("step", 0)
    seen.lost_seconds[name] = max(0.0, trained - saved_seconds)
    seen.step_seconds[name] = trained / max(1, step)


def trained_seconds(folder: Path) -> float:
    """Seconds of a trial's optimizer steps up to its last event, in all attempts but lost ones.

    The value depends on no clock, and time before the first step does not count.
    """
    told = read(folder / "progress.json")
    pace = told.get("metrics", {}).get("examples_per_second")
    return float(told["units"] / pace) if pace else 0.0


def _last_checkpoint(folder: Path) -> tuple[int, float, float]:
    """Step, training seconds and time of the last checkpoint; zeros without one."""
    places = sorted(folder.glob("checkpoints/step-*"))
    if not places:
        return 0, 0.0, 0.0
    state = places[-1] / "state.json"
    trained = read(state).get("state", {}).get("progress", {}).get("train_seconds", 0.0)
    return int(places[-1].name.removeprefix("step-")), trained, written(state)


def check_resumed(place: Place, seen: Seen) -> None:
    """Checks that the state `seen` is preserved and that none of its work was repeated."""
    for name, written in seen.ended.items():
        now = (place.run / "trials" / name / "summary.json").stat().st_mtime_ns
        assert now == written, f"trial {name} had ended and was run again"
    for name, step in seen.saved_steps.items():
        with (place.run / "trials" / name / "worker.log").open() as log:
            log.seek(seen.logged_bytes[name])
            again = [told for told in logged_steps(log.read()) if 0 < told <= step]
        assert not again, f"trial {name} had saved step {step} and did {again} again"


def check_lost_work(seen: Seen, *, checkpoint_seconds: float) -> None:
    """Checks that no trial lost more training than lies between two checkpoints.

    It compares the trial's own training seconds: no trial runs between a kill and the next driver.
    """
    for name, lost in seen.lost_seconds.items():
        bound = MARGIN * (checkpoint_seconds + seen.step_seconds[name])
        assert lost < bound, f"trial {name} lost {lost:.2f} s of training, more than {bound:.2f} s"


def check_whole(place: Place, *, trials: int, baselines: int) -> None:
    """Checks that an ended sweep is as complete as an undisturbed one."""
    summaries = place.summaries()
    roles = Counter(summary["role"] for summary in summaries.values())
    assert roles == {"trial": trials, "baseline": baselines}
    assert len(place.trials) == trials + baselines, "trials without an end"
    assert {summary["state"] for summary in summaries.values()} <= {"finished", "stopped"}
    report = (place.run / "report.md").read_text()
    assert "Best" in report
    assert not (place.run / "driver.lock").exists()
    assert not [*place.run.rglob("*.part")], "files half written"
    for name, summary in summaries.items():
        units = [event["units"] for event in summary["history"]]
        assert units == sorted(units), f"trial {name} goes back"
        assert len(set(units)) == len(units), f"trial {name} tells of a step twice"
    check_tracking(place)


def check_tracking(place: Place, *, of_unfinished: bool = True) -> None:
    """Checks that MLflow has one run per trial, none RUNNING, and each point of each curve once."""
    client, runs = _client(place), _runs(place)
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == len(nested) + 1, "one parent"
    ids = Counter(run.data.tags["trial_id"] for run in nested)
    assert ids == Counter(folder.name for folder in place.trials)
    running = [run.data.tags["trial_id"] for run in runs if run.info.status == "RUNNING"]
    assert not running
    for run in nested:
        run_id, trial_id = run.info.run_id, run.data.tags["trial_id"]
        summary = read(place.run / "trials" / trial_id / "summary.json")
        assert summary or not of_unfinished
        for metric, steps in told_steps(summary.get("history", [])).items():
            points = [point.step for point in client.get_metric_history(run_id, metric)]
            assert sorted(points) == steps, f"{metric} of trial {trial_id}"


def statuses(place: Place) -> dict[str, str]:
    """MLflow's status of each trial's run."""
    nested = [run for run in _runs(place) if "mlflow.parentRunId" in run.data.tags]
    return {run.data.tags["trial_id"]: run.info.status for run in nested}


def check_equal_results(place: Place, undisturbed: Place) -> int:
    """Checks that trials finished in both sweeps have equal results; returns their number."""
    ours, theirs = place.summaries(), undisturbed.summaries()
    both = [
        name
        for name in ours.keys() & theirs.keys()
        if ours[name]["state"] == theirs[name]["state"] == "finished"
    ]
    for name in both:
        for metric in ("eval_loss", "em_acc"):
            assert ours[name]["metrics"][metric] == theirs[name]["metrics"][metric], (name, metric)
    return len(both)


def told_steps(history: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The units at which each metric must have points: those of the events that contain it."""
    steps: dict[str, set[int]] = {}
    for event in history:
        for metric, value in event["metrics"].items():
            if value is not None:
                steps.setdefault(metric, set()).add(event["units"])
    return {metric: sorted(units) for metric, units in steps.items()}


def logged_steps(log: str) -> list[int]:
    """The optimizer steps in a worker.log, from lines such as '12:00:01 rung step 8 ...'."""
    words = (line.split() for line in log.splitlines())
    return [
        int(line[3])
        for line in words
        if len(line) > 3 and line[1] in ("progress", "rung") and line[3].isdigit()
    ]


def read(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if it is absent or incomplete."""
    try:
        value: dict[str, Any] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return value


def written(file: Path) -> float:
    """The file's modification time in seconds since 1970; 0 if it is absent."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _client(place: Place) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{place.database}")


def _runs(place: Place) -> list[Any]:
    client = _client(place)
    experiments = [item.experiment_id for item in client.search_experiments()]
    return list(client.search_runs(experiments))


def _environment(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace")
    except OSError:
        return ""
