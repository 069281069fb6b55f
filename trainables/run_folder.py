"""Where everything of a run lies on disk, and the only place that writes it.

    STORAGE/mlflow.db
    STORAGE/NAME/{sweep.yaml, sweep.json, results.csv, report.md, pareto.png, driver.lock}
    STORAGE/NAME/trials/TRIAL_ID/{spec.json, summary.json, predictions.jsonl, ...}

A file is written beside its place and moved there, so a reader sees the old one or the new one.
`summary.json` is a trial's last file: where it can be read, the trial is done.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.spec import TrialSpec

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one sweep: `storage/name`."""

    path: Path

    @property
    def sweep_file(self) -> Path:
        return self.path / "sweep.yaml"

    @property
    def results_file(self) -> Path:
        return self.path / "results.csv"

    @property
    def report_file(self) -> Path:
        return self.path / "report.md"

    @property
    def pareto_file(self) -> Path:
        return self.path / "pareto.png"

    @property
    def lock_file(self) -> Path:
        return self.path / "driver.lock"

    @property
    def state_file(self) -> Path:
        return self.path / "sweep.json"

    def write_state(self, state: Mapping[str, Any]) -> None:
        """`sweep_id`, `resume_command`, and once it has ended `trials_done` and `exhausted`."""
        write_json(self.state_file, state)

    def state(self) -> Json | None:
        return _read_json(self.state_file)

    @property
    def tracking_database(self) -> Path:
        return self.path.parent / "mlflow.db"

    def trial(self, trial_id: str) -> TrialFolder:
        return TrialFolder(self.path / "trials" / trial_id)

    def trials(self) -> Iterator[TrialFolder]:
        """Every trial that has a spec, in order of the time its spec was written."""
        specs = (self.path / "trials").glob("*/spec.json")
        for spec in sorted(specs, key=lambda file: (file.stat().st_mtime_ns, file.parent.name)):
            yield TrialFolder(spec.parent)

    def write_text(self, file: Path, text: str) -> None:
        write_bytes(file, text.encode())

    def write_bytes(self, file: Path, content: bytes) -> None:
        write_bytes(file, content)


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial: `storage/name/trials/TRIAL_ID`."""

    path: Path

    @property
    def trial_id(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "spec.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def log_file(self) -> Path:
        return self.path / "worker.log"

    @property
    def adapter_folder(self) -> Path:
        return self.path / "adapter"

    @property
    def checkpoints_folder(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report_score_file(self) -> Path:
        return self.path / "report.json"

    def predictions_file(self, split: str = "selection") -> Path:
        name = "predictions.jsonl" if split == "selection" else f"{split}_predictions.jsonl"
        return self.path / name

    @property
    def done(self) -> bool:
        return self.summary() is not None

    def write_spec(self, spec: TrialSpec, suggestion: Mapping[str, Any]) -> None:
        """The spec, with the sampler's parameters that led to it (see `orchestrator.search`)."""
        write_json(self.spec_file, {**spec.to_json(), "suggestion": dict(suggestion)})

    def spec(self) -> TrialSpec:
        return TrialSpec.from_json(json.loads(self.spec_file.read_text()))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_json(self.summary_file, summary)

    def summary(self) -> Json | None:
        return _read_json(self.summary_file)

    def write_progress(self, progress: Mapping[str, Any]) -> None:
        """What a trial that is not done has reached, for `orchestrator.status`."""
        write_json(self.progress_file, progress)

    def progress(self) -> Json | None:
        return _read_json(self.progress_file)

    def write_report_score(self, score: Mapping[str, Any]) -> None:
        write_json(self.report_score_file, score)

    def report_score(self) -> Json | None:
        return _read_json(self.report_score_file)

    def write_predictions(
        self, rows: Iterable[Mapping[str, Any]], split: str = "selection"
    ) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(self.predictions_file(split), lines.encode())

    def append_log(self, line: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a") as log:
            log.write(line.rstrip("\n") + "\n")

    def set_spec_aside(self) -> None:
        """A damaged spec is kept for a person to look at; the folder is no trial any more."""
        self.spec_file.replace(self.spec_file.with_suffix(".damaged"))

    def discard_result(self) -> None:
        """Forgets how the trial ended, so that it runs again from its last checkpoint."""
        self.summary_file.unlink(missing_ok=True)

    def discard_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints_folder, ignore_errors=True)


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Writes beside and moves into place; NaN and infinity are written as null."""
    write_bytes(file, (json.dumps(_finite(value), indent=2, ensure_ascii=False) + "\n").encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Writes beside and moves into place, durable once it returns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.part")
    with beside.open("wb") as part:
        part.write(content)
        part.flush()
        os.fsync(part.fileno())
    beside.replace(file)


def _read_json(file: Path) -> Json | None:
    """None for a file that is not there or that a crash of the machine left torn."""
    try:
        value = json.loads(file.read_text())
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
