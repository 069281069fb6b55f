"""Access to an MLflow store: connection, experiments, runs, their tags, errors."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.tracking.mlflow_points import Point, StoredRun
from orchestrator.tracking.mlflow_tables import table_text
from orchestrator.tracking.sqlite_store import move_artifacts, sqlite_file
from orchestrator.tracking.tracker import RunEnd, SweepIdentity, TrackingError, redact
from trainables.storage.atomic_files import temporary_path
from trainables.storage.layout import sqlite_uri

MIRRORED = "mirrored"  # tag: the digest of all that was written to an ended trial's run
RUNS_PER_PAGE = 1000
LONGEST_VALUE = 5000  # characters of a parameter or tag; MLflow takes 6000 and 8000
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # not GenAI
ENVIRONMENT = {  # unless the user has set them
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a repeated "create run" would make two
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_command(uri: str) -> str:
    """The command that shows the store in a browser; for a server, the one that opens its URL."""
    if uri.startswith(("http://", "https://")):
        return f"open {redact(uri)}"
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program) if program.exists() else "mlflow", "ui", "--backend-store-uri"]
    return shlex.join([*command, redact(uri)])


def silence_mlflow() -> None:
    """Sets MLflow's environment variables and log levels; must precede the import of mlflow."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def connect(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create_store(uri: str) -> None:
    """Creates a SQLite store that does not exist yet; no effect on other stores.

    MLflow creates the tables step by step and can't open a store whose creation was cut off, for
    instance by a kill. So they are created in a temporary file, which is moved to its place last.
    Needs exclusive access to the store.
    """
    database = sqlite_file(uri)
    if database is None or (database.exists() and database.stat().st_size > 0):
        return
    for left in database.parent.glob(f".{database.name}.*.part*"):
        left.unlink()
    temporary = temporary_path(database)
    connect(sqlite_uri(temporary)).search_experiments(max_results=1)
    temporary.replace(database)


def find_or_create_experiment(client: Any, *, uri: str, name: str) -> str:
    """The id of the sweep's experiment, which is created or restored if necessary.

    The artifacts of a SQLite store lie beside its database, not in the working directory, also
    after both were moved or copied.
    """
    folder = artifacts_folder(uri, name)
    location = None if folder is None else _location(folder)
    found = client.get_experiment_by_name(name)
    if found is None:
        made = client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
        return str(made)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    old, database = found.artifact_location, sqlite_file(uri)
    was_beside = old.endswith(f"/artifacts/{Path(old).name}") and old.startswith(("/", "file:///"))
    if database is not None and location is not None and was_beside and old != location:
        move_artifacts(database, found.experiment_id, old=old, new=location)
    return str(found.experiment_id)


def artifacts_folder(uri: str, name: str) -> Path | None:
    """Where an experiment's artifacts lie if the store is SQLite, each run's in RUN_ID/artifacts;
    None for another store, which says it itself."""
    database = sqlite_file(uri)
    return database.resolve().parent / "artifacts" / name if database else None


def _location(folder: Path) -> str:
    """The folder for MLflow, which decodes %XX in a path and takes what follows "?" for options."""
    return folder.as_uri() if {"%", "?"} & {*str(folder)} else str(folder)


def search_runs(client: Any, experiment: str, sweep: SweepIdentity) -> Iterator[Any]:
    """All runs of the sweep, one page per request."""
    page = None
    while True:
        found = client.search_runs(
            [experiment],
            f"tags.sweep_id = '{sweep.sweep_id}'",
            max_results=RUNS_PER_PAGE,
            page_token=page,
        )
        yield from found
        page = found.token
        if not page:
            return


def stored_run(found: Any) -> StoredRun:
    return StoredRun(
        found.info.run_id,
        found.info.start_time,
        dict(found.data.tags),
        params=list(found.data.params),
        metrics=list(found.data.metrics),
        status=found.info.status,
        last_time=found.info.end_time or found.info.start_time,
    )


def preference(run: StoredRun) -> tuple[Any, ...]:
    """A sort key: of two runs of a trial the one with more content is first, then the older."""
    return not run.tags.get(MIRRORED), -len(run.metrics), run.started, run.run_id


def remember_points(client: Any, run: StoredRun) -> None:
    run.last_time = run.started
    for name in run.metrics:
        for metric in client.get_metric_history(run.run_id, name):
            run.remember(Point(name, metric.step, metric.value, metric.timestamp))


def digest_of_end(end: RunEnd) -> str:
    """The digest of all that is written to a run when its trial ends."""
    content = {
        "state": end.state,
        "reason": end.reason,
        "history": [event.to_json() for event in end.history],
        "metrics": dict(end.metrics),
        "tags": dict(end.tags),
        "tables": {name: table_text(rows) for name, rows in end.tables.items()},
        "artifacts": digest_of_files(end.artifacts),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def digest_of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value)[:LONGEST_VALUE] for key, value in values.items()}


def text_of(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_VALUE]


@contextmanager
def tracking_errors(uri: str) -> Iterator[None]:
    """Turns errors of a store that is unreachable, broken or not MLflow into TrackingError."""
    try:
        yield
    except _outside_errors() as error:
        cause = redact(str(_root(error))).strip() or type(error).__name__
        message = f"MLflow at {redact(uri)} can't be used: {cause.splitlines()[0][:200]}"
        raise TrackingError(message) from None  # the cause's text may hold the password


def _outside_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: a database's driver that is not installed
    return (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ValueError, ImportError)


def _root(error: BaseException) -> BaseException:
    """The operating system's error at the root of the chain, which is short; else the error."""
    deepest = error
    while (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    return deepest if isinstance(deepest, OSError) else error
