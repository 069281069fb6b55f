"""What does a report cost when many trials have finished?

    python -m benchmarks.report_at_scale [--trials 200] [--questions 900] [--grid]
                                         [--baseline CHECKOUT] [--output FOLDER]

Makes a run folder of finished trials with synthetic predictions (the same for the same --seed),
runs `python -m orchestrator.report` on it, and prints its CPU seconds, the whole process counted,
by part. With --grid every configuration is tried with each quantization, which makes three pairs of
four trials whose answers are compared question by question; else every trial has a learning rate of
its own and there are no pairs but those of the baselines. With --baseline the report of another
checkout is measured on the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks import cpu_by_part
from benchmarks.synthetic_run import Scale, make_run
from benchmarks.workload import REPOSITORY
from trainables.storage.run_folder import RunFolder

LEAST_SECONDS = 0.02  # of a part that the table names


def measured(checkout: Path, run: RunFolder) -> dict[str, float]:
    """CPU seconds of a checkout's report command by part."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "parts.json"
        command = [sys.executable, cpu_by_part.__file__, str(output)]
        subprocess.run(
            [*command, "orchestrator.report", str(run.path.resolve())],
            check=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdout=subprocess.DEVNULL,
        )
        found: dict[str, float] = json.loads(output.read_text())
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: the parts by their seconds in the first checkout, the total at the top."""
    names = sorted(
        {part for parts in found.values() for part in parts},
        key=lambda part: [-parts.get(part, 0.0) for parts in found.values()],
    )
    shown = [
        part
        for part in names
        if any(parts.get(part, 0.0) >= LEAST_SECONDS for parts in found.values())
    ]
    rows = [
        ["part", *found],
        ["---", *["--:"] * len(found)],
        ["all", *(f"{sum(parts.values()):.2f} s" for parts in found.values())],
        *([part, *(_seconds(parts, part) for parts in found.values())] for part in shown),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    scale = Scale(options.trials, options.questions, options.grid, options.seed)
    checkouts = {"this checkout": REPOSITORY}
    if options.baseline is not None:
        checkouts["baseline"] = options.baseline.resolve()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(options.output or folder) / "benchmark", scale)
        found = {name: measured(checkout, run) for name, checkout in checkouts.items()}
    kind = "grid" if scale.is_grid else "random"
    print(f"{date.today()}, {_processor()}, Python {platform.python_version()}.")
    print(f"CPU seconds, {scale.trials} trials ({kind}), {scale.questions} questions:\n")
    print(table(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report_at_scale")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--questions", type=int, default=900)
    parser.add_argument("--grid", action="store_true", help="each configuration quantized too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baseline", type=Path, metavar="CHECKOUT")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="keep the run folder here")
    return parser


def _seconds(parts: Mapping[str, float], part: str) -> str:
    return f"{parts[part]:.2f}" if part in parts else ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores ({names[0]})" if names else "unknown processor"


if __name__ == "__main__":
    main()
