"""Sweeps small enough for a test: a space in YAML, its command, a planner and a trial queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.reader import from_mapping
from orchestrator.config.sections import SweepConfig
from orchestrator.planning.planner import Planner
from orchestrator.planning.sources import ModelSource
from orchestrator.runs.ledger import Ledger, TrialRecord
from orchestrator.search.searcher import Search
from orchestrator.search.trial_queue import TrialQueue
from orchestrator.space.constraints import cells
from trainables.spec.events import Event
from trainables.storage.run_folder import RunFolder

REPOSITORY = Path(__file__).resolve().parent.parent.parent
GENERATED = {"kinds": ["latest", "rose"], "train": 48, "selection": 8, "report": 4, "seed": 5}
CPU: Mapping[str, Any] = {
    "device_type": "cpu",
    "device": "a test's CPU",
    "bfloat16": False,
    "compute_dtype": "float32",
}


def mapping(model: str = "a-model", **sections: Any) -> dict[str, Any]:
    """A sweep of four configurations as a YAML value; `sections` replace its sections."""
    return {
        "task": "finqa",
        "data": {"generated": dict(GENERATED)},
        "space": {
            "model": model,
            "quantization": ["none", "nf4"],
            "rank": [2, 4],
            "alpha": 8,
            "learning_rate": 1.0e-3,
            "batch_size": 4,
            "prompt": "statements",
            "sequence_length": 256,
        },
        "budget": {"train_examples": 32, "eval_examples": 4, "seed": 3},
        "search": {"algorithm": "random", "trials": 4},
        "scheduler": {"asha": {"grace": 0.25, "reduction": 2}},
        "resources": {"concurrent_trials": 2},
        "execution": {"max_new_tokens": 4, "eval_batch_size": 4},
        **sections,
    }


def write_space(file: Path, value: Mapping[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(dict(value), sort_keys=False))
    return file


def planner(settings: SweepConfig, **device: Any) -> Planner:
    """A planner whose models need no folder: a model's digest follows from its name."""
    names = {str(cell.model) for cell in cells(settings.space)}
    models = {name: ModelSource(f"/models/{name}", f"digest of {name}") for name in names}
    return Planner(settings, models=models, device={**CPU, **device})


def config(**sections: Any) -> SweepConfig:
    return from_mapping(mapping(**sections))


def trial_queue(
    run: RunFolder, settings: SweepConfig, *, plan: Planner | None = None
) -> tuple[TrialQueue, Ledger, list[TrialRecord]]:
    """A trial queue on a run folder, as a driver makes it, its ledger, and a list of rejections."""
    rejected: list[TrialRecord] = []
    ledger = Ledger(run)
    made = TrialQueue(
        planner=plan or planner(settings),
        search=Search(settings, known_trials=len(ledger.records)),
        ledger=ledger,
        on_rejected=rejected.append,
    )
    return made, ledger, rejected


def finish(made: TrialQueue, ledger: Ledger, record: TrialRecord, *, value: float = 0.5) -> None:
    """Ends a trial as a worker and the driver do: last rung, summary, ledger, trial queue."""
    event = rung(value)
    record.history.append(event)
    made.rung(record, event)
    record.folder.write_summary({"state": "finished", "history": [event.to_json()]})
    ledger.finished(record)
    made.ended(record)


def run_out(
    made: TrialQueue, ledger: Ledger, *, value: Callable[[TrialRecord], float] = lambda record: 0.5
) -> list[TrialRecord]:
    """Finishes the trials of a queue, one after another, until it is empty; returns them."""
    given = []
    while (record := made.next()) is not None:
        given.append(record)
        finish(made, ledger, record, value=value(record))
    return given


def rung(em_acc: float, *, units: int = 32, fraction: float = 1.0, loss: float = 1.0) -> Event:
    metrics = {"em_acc": em_acc, "eval_loss": loss, "em_acc_questions": 8.0}
    return Event("rung", units // 4, units, metrics, fraction, 1.0)


def command(space: Path, storage: Path, *more: str, predicts: bool = False) -> list[str]:
    """The command line of a sweep on a Ray of its own.

    Without `predicts` no simulator runs beside its hosts: most tests ask for nothing that it says.
    """
    program = [sys.executable, "-m", "orchestrator.sweep", str(space), "--storage", str(storage)]
    return [*program, "--address", "local", *([] if predicts else ["--no-predict"]), *more]


def environment() -> dict[str, str]:
    """The environment of a sweep's process, with one thread for each host."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    return {**os.environ, **own}


def sweep(
    space: Path, storage: Path, *more: str, predicts: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs the command line to its end."""
    return subprocess.run(
        command(space, storage, *more, predicts=predicts),
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def summaries(run: Path) -> dict[str, dict[str, Any]]:
    """The summaries of a run folder by trial id."""
    files = (run / "trials").glob("*/summary.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}
