"""Measures the driver's cost per trial, and whether it grows with the number of finished trials.

    python -m benchmarks.driver_at_scale [--trials 200] [--workers 16] [--output FOLDER]

Runs a whole sweep by its command (Optuna, Tune, trial folders, MLflow in sqlite, the report) on
real hosts whose training is replaced: it returns its events at once. All measured time is therefore
the driver's. Prints, for each fifth of the trials, the seconds between two trials' ends and the
driver's CPU seconds per trial.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.workload import REPOSITORY
from trainables.spec.events import Event
from trainables.spec.states import FINISHED
from trainables.workers.host import HostProcess

FIFTHS = 5
QUESTIONS = 8
DEVICE: Mapping[str, Any] = {
    "device_type": "cpu",
    "device": "nothing is computed",
    "bfloat16": False,
    "compute_dtype": "float32",
}


@dataclass(frozen=True)
class End:
    """A trial's end as the driver saw it, in wall seconds and in the driver's CPU seconds since the
    sweep's start."""

    clock_seconds: float
    cpu_seconds: float


class TrivialHost(HostProcess):
    """A host whose trials return prepared events instead of training."""

    def warm_up(self) -> dict[str, Any]:
        return dict(DEVICE)

    def score_report(self, folder: str, silent_seconds: float | None = None) -> dict[str, Any]:
        from trainables.storage.trial_folder import TrialFolder

        score = {"split": "report", "metrics": _metrics(0.5), "count": QUESTIONS, "facts": {}}
        TrialFolder(Path(folder)).write_report_score(score)
        return score

    def _prepare(self) -> list[Event]:
        self._running = self._events()
        return []

    def _events(self) -> Generator[Event, None, None]:
        """The rungs of the spec, then the end; results depend on the configuration."""
        assert self._folder is not None
        spec, began, history = self._folder.spec(), time.perf_counter(), []
        value = 1 / (1 + spec.knobs.get("learning_rate", 0.0))
        for place, fraction in enumerate(spec.budget.rungs, start=1):
            units = round(fraction * spec.budget.train_examples)
            taken = time.perf_counter() - began
            history.append(Event("rung", place, units, _metrics(value), fraction, taken))
            yield history[-1]
        last = history[-1]
        rows = [{"id": str(number), "em_acc": True} for number in range(QUESTIONS)]
        self._folder.write_predictions(rows)
        self._folder.write_summary(_summary(spec, history, self._provenance))
        yield Event("finished", last.step, last.units, last.metrics, 1.0, last.seconds)


def install() -> None:
    """Replaces the host class by TrivialHost; every Ray worker process calls it at its start."""
    import ray

    import trainables.workers.host

    trainables.workers.host.Host = ray.remote(concurrency_groups={"control": 2, "watch": 1})(
        TrivialHost
    )


def space(*, trials: int, workers: int) -> dict[str, Any]:
    """A search space with ranges, so that configurations never run out, and no early stopping."""
    return {
        "task": "finqa",
        "data": {
            "generated": {"kinds": ["latest"], "train": 16, "selection": 8, "report": 4, "seed": 1}
        },
        "space": {
            "model": "base_models/small",
            "quantization": "none",
            "method": [
                {
                    "lora": {
                        "rank": [4, 8, 16, 32],
                        "alpha": [8, 16, 32],
                        "learning_rate": {"log_uniform": [1.0e-5, 1.0e-2]},
                    }
                }
            ],
            "batch_size": [4, 8],
            "prompt": "statements",
            "sequence_length": 128,
        },
        "budget": {"train_examples": 16, "eval_examples": 4, "seed": 1},
        "search": {"algorithm": "tpe", "trials": trials},
        "scheduler": "none",
        "resources": {"cpus_per_trial": 1, "concurrent_trials": workers},
    }


def measure(folder: Path, *, trials: int, workers: int) -> list[End]:
    """Runs the sweep with this process as its driver; returns the ends of its trials, in order."""
    from orchestrator import sweep
    from orchestrator.cluster import session
    from orchestrator.runs import ledger

    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(space(trials=trials, workers=workers)))
    ends: list[End] = []
    began = time.perf_counter(), time.process_time()
    finished = ledger.Ledger.finished

    def note(self: Any, record: Any) -> None:
        finished(self, record)
        if record.is_trial:
            ends.append(End(time.perf_counter() - began[0], time.process_time() - began[1]))

    ledger.Ledger.finished = note  # type: ignore[method-assign]
    session.start_ray = lambda address, **_: _start_ray(workers)
    words = [str(file), "--storage", str(folder / "runs"), "--address", "local", "--no-predict"]
    code = sweep.main(words)
    if code:
        raise RuntimeError(f"the sweep ended with {code}")
    return ends


def report(ends: Sequence[End], *, workers: int, whole_seconds: float) -> str:
    """Returns the table as Markdown, with the machine and the versions."""
    lines = [
        f"{date.today()}, {os.cpu_count()} CPU cores ({platform.processor() or 'CPU'}), load "
        f"average {os.getloadavg()[0]:.1f} at the end; {len(ends)} trials on {workers} logical "
        f"workers; ray {version('ray')}, optuna {version('optuna')}, mlflow {version('mlflow')}.",
        "",
        "| trials | seconds between ends, median | seconds per trial | driver's CPU s per trial |",
        "|---|---|---|---|",
    ]
    for first, part in _fifths(ends):
        spans = [later.clock_seconds - sooner.clock_seconds for sooner, later in pairwise(part)]
        per_trial = (part[-1].clock_seconds - part[0].clock_seconds) / len(spans)
        cpu = (part[-1].cpu_seconds - part[0].cpu_seconds) / len(spans)
        name = f"{first + 1} to {first + len(part)}"
        lines.append(f"| {name} | {median(spans):.3f} | {per_trial:.3f} | {cpu:.3f} |")
    return "\n".join([*lines, "", f"The whole command took {whole_seconds:.0f} s."])


def growth(ends: Sequence[End]) -> float:
    """The driver's CPU seconds per trial in the last fifth, divided by those in the second.

    The first fifth includes start-up: processes that import while trials run.
    """
    parts = [part for _, part in _fifths(ends)]
    cost = [(part[-1].cpu_seconds - part[0].cpu_seconds) / (len(part) - 1) for part in parts]
    return cost[-1] / cost[1]


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="at-scale-") as folder:
        ends = measure(Path(folder), trials=given.trials, workers=given.workers)
    whole = time.perf_counter() - began
    text = report(ends, workers=given.workers, whole_seconds=whole)
    print(f"\n{text}\n\nCPU per trial, last fifth over second: {growth(ends):.2f}")
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "driver_at_scale.md").write_text(text + "\n")
        raw = [asdict(end) for end in ends]
        (given.output / "driver_at_scale.json").write_text(json.dumps(raw, indent=1))
    return 0


def _start_ray(workers: int) -> None:
    """Starts Ray as the sweep does, with `workers` logical CPUs and trivial hosts."""
    import logging

    import ray

    ray.init(
        address="local",
        namespace="sweep",
        num_cpus=workers,
        _memory=workers << 30,
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        runtime_env={
            "worker_process_setup_hook": "benchmarks.driver_at_scale.install",
            "env_vars": {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        },
    )


def _fifths(ends: Sequence[End]) -> list[tuple[int, Sequence[End]]]:
    """For each fifth the index of its first trial, and its trials."""
    size = len(ends) // FIFTHS
    return [(place * size, ends[place * size : (place + 1) * size]) for place in range(FIFTHS)]


def _metrics(value: float) -> dict[str, float]:
    return {
        "em_acc": value,
        "eval_loss": 2 - value,
        "em_acc_questions": float(QUESTIONS),
        "train_peak_memory_bytes": 1e6,
        "eval_peak_memory_bytes": 1e6,
    }


def _summary(spec: Any, history: Sequence[Event], provenance: Mapping[str, str]) -> dict[str, Any]:
    last = history[-1]
    return {
        "trial_id": spec.trial_id,
        "role": spec.role,
        "state": FINISHED,
        "reason": "",
        "configuration": dict(spec.knobs),
        "metrics": dict(last.metrics),
        "step": last.step,
        "units": last.units,
        "fraction": 1.0,
        "seconds": {"load": 0.0, "train": last.seconds, "eval": 0.0, "total": last.seconds},
        "times": {"first_step": None, "end": time.time()},
        "history": [event.to_json() for event in history],
        "facts": {"selection": {"context": "full", "evidence": "none"}},
        "provenance": dict(provenance),
        "attempts": 1,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.driver_at_scale",
        description="Measures the driver's cost per trial, and whether it grows with their number.",
    )
    parser.add_argument("--trials", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=16, help="concurrent trials (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for the table")
    return parser


if __name__ == "__main__":
    sys.exit(main())
