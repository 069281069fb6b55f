"""Measures what a sweep costs besides training: this project against plain Ray Tune, on equal work.

    python -m benchmarks.overhead [--repeats 3] [--slots 2] [--quick] [--output FOLDER]

Runs the same trials with (a) this project, (b) Ray Tune as its documentation shows it and (c) Ray
Tune with reused actors, one after another in each round, each on a Ray of its own, and prints
medians. docs/overhead.md defines the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.this_project import trial_times
from benchmarks.timeline import SHARES, RunTimes, TrialTimes
from benchmarks.workload import REPOSITORY, Workload, write_prepared

CONTENDERS: Mapping[str, tuple[str, list[str]]] = {
    "a": ("this project", ["benchmarks.this_project"]),
    "b": ("plain Ray Tune", ["benchmarks.plain_tune"]),
    "c": ("Ray Tune, reused actors", ["benchmarks.plain_tune", "--reuse-actors"]),
}
QUICK = Workload(train_examples=32, eval_questions=8, ranks=(4,), learning_rates=(1e-3, 2e-3, 4e-3))
RUN_SECONDS_ALLOWED = 1800
LOSS_TOLERANCE = 0.05  # relative; only the order of additions differs between contenders
_PACKAGES = ("ray", "torch", "transformers", "peft", "optuna", "mlflow")

Runs = dict[str, list[RunTimes]]


class UnequalWorkError(RuntimeError):
    """The contenders did unequal work, so their times are not comparable."""


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    workload = QUICK if given.quick else Workload(slots=given.slots)
    with tempfile.TemporaryDirectory(prefix="overhead-") as scratch:
        runs = measure(workload, Path(scratch), repeats=1 if given.quick else given.repeats)
    check_equal_work(runs, workload)
    text = report(runs, workload)
    print(text)
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "overhead.md").write_text(text)
        raw = {name: [asdict(run) for run in those] for name, those in runs.items()}
        (given.output / "overhead.json").write_text(json.dumps(raw, indent=1))
    return 0


def measure(workload: Workload, folder: Path, *, repeats: int) -> Runs:
    """Runs every contender once per round; the data are tokenized before the first round."""
    prepared = folder / "prepared.json"
    write_prepared(workload, prepared)
    runs: Runs = {name: [] for name in CONTENDERS}
    for number in range(repeats):
        for name in CONTENDERS:
            place = folder / f"{number}-{name}"
            place.mkdir()
            workload.write(place / "workload.json")
            (place / "prepared.json").symlink_to(prepared)
            runs[name].append(_run(name, place, workload))
            print(f"round {number + 1}, {name}: {runs[name][-1].makespan:.1f} s", file=sys.stderr)
    return runs


def check_equal_work(runs: Runs, workload: Workload) -> None:
    """Raises UnequalWorkError unless all runs did the same steps, tokens and questions.

    Each trial must use one thread, and one configuration must reach the same eval loss in all runs.
    """
    wanted = (workload.steps, workload.eval_questions, 1)
    losses: dict[tuple[int, float], float] = {}
    tokens: set[float] = set()
    for run in _all(runs):
        if len(run.trained) != len(workload.configurations):
            raise UnequalWorkError(f"{len(run.trained)} trials were trained")
        for trial in run.trained:
            counts = trial.counts
            if (counts["steps"], counts["questions"], counts["threads"]) != wanted:
                raise UnequalWorkError(f"{counts}; wanted {wanted}")
            tokens.add(counts["tokens"])
            loss = trial.metrics["eval_loss"]
            seen = losses.setdefault((trial.rank, trial.learning_rate), loss)
            if abs(loss - seen) > LOSS_TOLERANCE * seen:
                raise UnequalWorkError(f"eval loss {loss:.4f} and {seen:.4f} of {trial}")
    if len(tokens) != 1:
        raise UnequalWorkError(f"tokens trained on: {sorted(tokens)}")


def report(runs: Runs, workload: Workload) -> str:
    """Returns the figures as Markdown."""
    lines = [*_conditions(workload, rounds=len(runs["a"])), ""]
    lines += [f"| | {' | '.join(f'({n}) {CONTENDERS[n][0]}' for n in runs)} | b / a | c / a |"]
    lines += ["|---|" + "---|" * (len(runs) + 2)]
    for name, value, unit in _rows():
        figures = {key: value(those) for key, those in runs.items()}
        ratios = [f"{figures[key] / figures['a']:.1f}" for key in ("b", "c")]
        if unit == "%":
            ratios = ["", ""]
        shown = [_shown(figure, unit) for figure in figures.values()]
        lines.append(f"| {' | '.join([name, *shown, *ratios])} |")
    return "\n".join([*lines, "", _largest_difference(runs), ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--slots", type=int, default=2, help="concurrent trials (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of three tiny trials")
    parser.add_argument("--output", type=Path, help="folder for overhead.md and overhead.json")
    return parser


def _run(name: str, folder: Path, workload: Workload) -> RunTimes:
    module, *options = CONTENDERS[name][1]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    started = time.time()
    with (folder / "output.txt").open("w") as output:
        code = subprocess.run(
            [sys.executable, "-m", module, str(folder), *options],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=RUN_SECONDS_ALLOWED,
            check=False,
        ).returncode
    ended = time.time()
    if code != 0:
        tail = (folder / "output.txt").read_text()[-4000:]
        raise RuntimeError(f"({name}) ended with {code}:\n{tail}")
    ray_ready = float((folder / "ray_ready").read_text())
    trials = trial_times(folder, ray_ready=ray_ready) if name == "a" else _plain_times(folder)
    return RunTimes(started, ray_ready, ended, trials, workload.slots)


def _plain_times(folder: Path) -> list[TrialTimes]:
    files = sorted((folder / "trials").glob("*.json"))
    return [TrialTimes(**json.loads(file.read_text())) for file in files]


def _rows() -> Iterator[tuple[str, Callable[[list[RunTimes]], float], str]]:
    """Yields each figure: its name, its function of a contender's runs, its unit."""
    yield "from a trial's end to the next one's first step", _median_gap, "s"
    yield "the longest such time", lambda runs: max(_gaps(runs)), "s"
    yield "makespan: Ray's readiness to the last trial's end", _over(lambda run: run.makespan), "s"
    yield "start-up: the program's start to Ray's readiness", _over(lambda run: run.start_up), "s"
    yield "the whole program", _over(lambda run: run.wall), "s"
    yield "training of one trial", _over(_training_seconds), "s"
    for share in (*SHARES, "rest"):
        yield f"share of the makespan: {share}", _share(share), "%"


def _over(figure: Callable[[RunTimes], float]) -> Callable[[list[RunTimes]], float]:
    return lambda runs: median(map(figure, runs))


def _share(name: str) -> Callable[[list[RunTimes]], float]:
    return _over(lambda run: run.shares()[name])


def _gaps(runs: Sequence[RunTimes]) -> list[float]:
    return [gap for run in runs for gap in run.gaps()]


def _median_gap(runs: Sequence[RunTimes]) -> float:
    return median(_gaps(runs))


def _training_seconds(run: RunTimes) -> float:
    return median(trial.seconds["train"] for trial in run.trained)


def _shown(figure: float, unit: str) -> str:
    return f"{100 * figure:.0f}%" if unit == "%" else f"{figure:.2f} s"


def _all(runs: Runs) -> list[RunTimes]:
    return [run for those in runs.values() for run in those]


def _conditions(workload: Workload, *, rounds: int) -> list[str]:
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return [
        f"{date.today()}, {cores} cores ({_cpu()}), Python {platform.python_version()}, "
        f"{versions}.",
        f"{rounds} rounds of {len(workload.configurations)} trials: {workload.steps} optimizer "
        f"steps and {workload.eval_questions} questions each, {workload.slots} at once, "
        "one thread each.",
    ]


def _cpu() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _largest_difference(runs: Runs) -> str:
    """Returns a sentence on the largest relative difference of a configuration's eval losses."""
    by_configuration: dict[Any, list[float]] = {}
    for run in _all(runs):
        for trial in run.trained:
            key = (trial.rank, trial.learning_rate)
            by_configuration.setdefault(key, []).append(trial.metrics["eval_loss"])
    differences = [max(losses) / min(losses) - 1 for losses in by_configuration.values()]
    return f"Eval losses of one configuration differ by {100 * max(differences):.2f}% at most."


if __name__ == "__main__":
    sys.exit(main())
