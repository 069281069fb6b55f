"""The names of the files of a run and of its trials.

STORAGE/mlflow.db
STORAGE/NAME/{sweep.yaml, sweep.json, results.csv, report.md, pareto.png, study.db, driver.lock}
STORAGE/NAME/trials/TRIAL_ID/{spec.json, prediction.json, summary.json, predictions.jsonl, ...}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_DATABASE = "mlflow.db"
_NOT_RUNS = (_DATABASE, "artifacts", "mlflow-artifacts", "mlartifacts", "mlruns")  # of MLflow
_LONGEST_NAME = 200  # bytes; file systems take 255, MLflow's experiments 256


def wrong_run_name(name: str) -> str | None:
    """What keeps a text from being the name of a run, a folder in the storage, or None."""
    is_plain = Path(name).name == name and name.isprintable() and "\\" not in name
    if not name.strip() or not is_plain or name.startswith((".", "-")):
        return "needs a plain name, the folder of this run in --storage."
    if len(name.encode(errors="replace")) > _LONGEST_NAME:
        return f"needs at most {_LONGEST_NAME} bytes; it has {len(name.encode(errors='replace'))}."
    if name.lower().startswith(f"{_DATABASE}-") or name.lower() in _NOT_RUNS:
        return "needs another name: MLflow keeps its files there."
    return None


@dataclass(frozen=True)
class RunFiles:
    """The files of the run whose folder is `path`."""

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
    def flops_file(self) -> Path:
        return self.path / "flops.png"

    @property
    def study_file(self) -> Path:
        return self.path / "study.db"

    @property
    def predictions_folder(self) -> Path:
        """Results of simulations, by shape: a cache that may be deleted."""
        return self.path / "predictions"

    @property
    def lock_file(self) -> Path:
        return self.path / "driver.lock"

    @property
    def state_file(self) -> Path:
        return self.path / "sweep.json"

    @property
    def tracking_database(self) -> Path:
        return self.path.parent / _DATABASE

    @property
    def tracking_uri(self) -> str:
        """The URI of `tracking_database` in MLflow."""
        return sqlite_uri(self.tracking_database.resolve())

    @property
    def flips_file(self) -> Path:
        return self.path / "flips.csv"

    def flips_files(self, factor: str) -> tuple[Path, Path]:
        """The table of questions and the picture of the study of flips by a factor."""
        name = "flips" if factor == "quantization" else f"flips_{factor}"
        return self.path / f"{name}.csv", self.path / f"{name}.png"

    @property
    def trials_folder(self) -> Path:
        return self.path / "trials"


@dataclass(frozen=True)
class TrialFiles:
    """The files of the trial whose folder is `path`."""

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
    def estimate_file(self) -> Path:
        return self.path / "prediction.json"

    @property
    def progress_file(self) -> Path:
        return self.path / "progress.json"

    @property
    def owner_file(self) -> Path:
        """The process that trains the trial, see `trainables.storage.ownership`."""
        return self.path / "owner.json"

    @property
    def log_file(self) -> Path:
        return self.path / "worker.log"

    @property
    def adapter_folder(self) -> Path:
        return self.path / "adapter"

    @property
    def model_folder(self) -> Path:
        """What full fine-tuning made: a model of transformers, with its tokenizer."""
        return self.path / "model"

    @property
    def removed_model_file(self) -> Path:
        """Records that the model was deleted on purpose (see `discard_model`)."""
        return self.path / "model_removed.json"

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
    def reported_steps_file(self) -> Path:
        """The steps that the trial has reported, one per line."""
        return self.checkpoints_folder / "told"


def sqlite_uri(database: Path) -> str:
    """The URI of a SQLite database for SQLAlchemy, which decodes %XX and ends a path at a "?".

    It names the driver where the path has one of them, because MLflow would take the URI that it
    knows for the path, and make a folder of that name.
    """
    plain = str(database)
    encoded = plain.replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{plain}" if plain == encoded else f"sqlite+pysqlite:///{encoded}"
