"""How long is it from the command to the first optimizer step of the quickstart sweep?

    python -m benchmarks.first_step [CHECKOUT ...] [--rounds 3] [--processes]

Starts the quickstart sweep of each checkout (default: this one) in turn, round by round, until a
trial has done its first optimizer step, and ends it. Prints, for each checkout, the median seconds
to that step, the CPU seconds that all processes of the sweep had used by then, and the ratio to
the first checkout. `--processes` prints the CPU seconds of every process of the last round too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

from benchmarks.workload import REPOSITORY

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_SIGNALS = 0.5  # within 0.2 s a sweep takes them for one
SECONDS_ALLOWED = 300.0
SECONDS_TO_LEAVE = 60.0
NAME = "first-step"


@dataclass(frozen=True)
class Start:
    """One start of a sweep until its first optimizer step.

    `cpu_seconds` holds the user and system time of each process by then, by what it is and its id.
    """

    seconds: float
    cpu_seconds: Mapping[str, float]

    @property
    def all_cpu_seconds(self) -> float:
        return sum(self.cpu_seconds.values())


@dataclass(frozen=True)
class Sample:
    """A process at one moment (Unix)."""

    time: float
    title: str
    cpu_seconds: float


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    starts: dict[Path, list[Start]] = {checkout.resolve(): [] for checkout in given.checkouts}
    for number in range(given.rounds):
        for checkout, done in starts.items():
            with tempfile.TemporaryDirectory(prefix="first-step-") as storage:
                done.append(measure(checkout, Path(storage), command=given.space))
            told = f"{done[-1].seconds:.1f} s, {done[-1].all_cpu_seconds:.1f} s of CPU"
            print(f"round {number + 1}, {checkout}: {told}", file=sys.stderr)
    print(report(starts))
    if given.processes:
        print(*(_processes(checkout, done[-1]) for checkout, done in starts.items()), sep="\n")
    return 0


def measure(checkout: Path, storage: Path, *, command: Sequence[str] = ()) -> Start:
    """Runs the sweep of a checkout until its first optimizer step and ends it."""
    options = ["--name", NAME, "--storage", str(storage), "--address", "local"]
    with (storage / "output.txt").open("w") as output:
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.sweep", *command, *options],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _until_first_step(process, storage, began=began)
        except RuntimeError as error:
            tail = (storage / "output.txt").read_text()[-4000:]
            raise RuntimeError(f"{checkout}: {error}\n{tail}") from error
        finally:
            _end(process)


def report(starts: Mapping[Path, Sequence[Start]]) -> str:
    """The medians as Markdown."""
    lines = ["| checkout | to the first optimizer step | CPU seconds by then | ratio | CPU ratio |"]
    lines += ["|---|--:|--:|--:|--:|"]
    figures = [
        (checkout, median(s.seconds for s in done), median(s.all_cpu_seconds for s in done))
        for checkout, done in starts.items()
    ]
    _, seconds, cpu = figures[0]
    lines += [
        f"| {place.name} | {wall:.2f} s | {used:.2f} s | {wall / seconds:.2f} | {used / cpu:.2f} |"
        for place, wall, used in figures
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkouts", nargs="*", type=Path, default=[REPOSITORY], metavar="CHECKOUT")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each (default: 3)")
    parser.add_argument("--processes", action="store_true", help="print the CPU of each process")
    parser.add_argument(
        "--space", nargs="*", default=[], help="another space and options than the quickstart's"
    )
    return parser


def _until_first_step(process: subprocess.Popen[bytes], storage: Path, *, began: float) -> Start:
    """Looks at the sweep until a checkpoint says when the first step was done."""
    root, seen = psutil.Process(process.pid), dict[int, list[Sample]]()
    while process.poll() is None and time.time() - began < SECONDS_ALLOWED:
        for number, sample in _samples(root):
            seen.setdefault(number, []).append(sample)
        first = first_step(storage)
        if first is not None:
            return Start(first - began, cpu_seconds(seen, moment=first))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise RuntimeError(f"no optimizer step within {time.time() - began:.0f} s")


def first_step(storage: Path) -> float | None:
    """When the first optimizer step was done (Unix), by the checkpoints written so far."""
    times = []
    for state in storage.glob("*/trials/*/checkpoints/*/state.json"):
        with contextlib.suppress(OSError, ValueError):  # it is being replaced
            times.append(_step_time(json.loads(state.read_text())))
    return min((moment for moment in times if moment), default=None)


def _step_time(state: object) -> float:
    """`first_step_time`, wherever it stands in a checkpoint's state."""
    if not isinstance(state, dict):
        return 0.0
    if "first_step_time" in state:
        return float(state["first_step_time"])
    return max((_step_time(value) for value in state.values()), default=0.0)


def cpu_seconds(seen: Mapping[int, Sequence[Sample]], *, moment: float) -> dict[str, float]:
    """Of each process by the moment, by its last title and its id; those that used any."""
    by_then = {
        number: [sample for sample in samples if sample.time <= moment]
        for number, samples in seen.items()
    }
    return {
        f"{samples[-1].title} ({number})": samples[-1].cpu_seconds
        for number, samples in by_then.items()
        if samples and samples[-1].cpu_seconds > 0
    }


def _samples(root: psutil.Process) -> Iterator[tuple[int, Sample]]:
    """Each process of the tree, with user and system time, also of those it has waited for."""
    with contextlib.suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                used = sum(process.cpu_times()[:4])
                yield process.pid, Sample(time.time(), _title(process), used)


def _title(process: psutil.Process) -> str:
    """What a process is, in a few words; Ray's workers are one thing all along."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::") or "default_worker.py" in " ".join(words):
        return "ray worker"
    names = [word for word in words if not word.startswith("--")][:3]
    return " ".join(Path(name).name for name in names)[:60]


def _end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C twice does; what is left of the sweep's processes afterwards is killed."""
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        time.sleep(SECONDS_BETWEEN_SIGNALS)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS_TO_LEAVE)
        for left in [*tree, psutil.Process(process.pid)] if process.poll() is None else tree:
            with contextlib.suppress(psutil.Error):
                left.kill()


def _processes(checkout: Path, start: Start) -> str:
    ordered = sorted(start.cpu_seconds.items(), key=lambda item: -item[1])
    lines = [f"  {cpu:6.2f} s  {name}" for name, cpu in ordered]
    return "\n".join([f"{checkout.name}:", *lines])


if __name__ == "__main__":
    sys.exit(main())
