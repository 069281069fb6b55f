"""MLflow's store: connection, experiments, runs and their tags."""

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
from orchestrator.tracking.sqlite_store import sqlite_file
from orchestrator.tracking.tracker import RunEnd, SweepIdentity, TrackingError, redact
from trainables.storage.run_folder import RunFolder

MIRRORED = "mirrored"  # the tag with the digest of all that an ended trial's run was given
RUNS_PER_PAGE = 1000
LONGEST_VALUE = 5000  # characters of a parameter or tag; MLflow takes 6000 and 8000
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # not GenAI
ENVIRONMENT = {  # unless the user has set them
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds until a silent server is given up
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a repeated "create run" would make two
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "GIT_PYTHON_REFRESH": "quiet",
}


def default_uri(run: RunFolder) -> str:
    """The store beside the sweeps of a storage folder."""
    return f"sqlite:///{run.tracking_database.resolve()}"


def tracking_command(uri: str) -> str:
    """The command line that shows the store in a browser; a server is shown by its address."""
    if uri.startswith(("http://", "https://")):
        return f"open {redact(uri)}"
    program = Path(sys.executable).with_name("mlflow")
    command = [str(program) if program.exists() else "mlflow", "ui", "--backend-store-uri"]
    return shlex.join([*command, redact(uri)])


def _quieten() -> None:
    """Before mlflow is imported, which reads its settings then."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _connect(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _experiment(client: Any, *, uri: str, name: str) -> str:
    """The id of the sweep's experiment, created or restored; a local store keeps its artifacts
    beside its database, and not in the folder that the program was started in."""
    database = sqlite_file(uri)
    location = str(database.resolve().parent / "artifacts" / name) if database else None
    found = client.get_experiment_by_name(name)
    if found is None:
        made = client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
        return str(made)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _search(client: Any, experiment: str, sweep: SweepIdentity) -> Iterator[Any]:
    """All runs of the sweep, a page of them per request."""
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


def _stored(found: Any) -> StoredRun:
    return StoredRun(
        found.info.run_id,
        found.info.start_time,
        dict(found.data.tags),
        params=list(found.data.params),
        metrics=list(found.data.metrics),
        status=found.info.status,
        last_time=found.info.end_time or found.info.start_time,
    )


def _preference(run: StoredRun) -> tuple[Any, ...]:
    """Of two runs of one trial: the one that holds more, then the older."""
    return not run.tags.get(MIRRORED), -len(run.metrics), run.started, run.run_id


def _remember_points(client: Any, run: StoredRun) -> None:
    run.last_time = run.started
    for name in run.metrics:
        for metric in client.get_metric_history(run.run_id, name):
            run.remember(Point(name, metric.step, metric.value, metric.timestamp))


def _digest_of_end(end: RunEnd) -> str:
    """Of all that a run is given in the end, by content."""
    told = {
        "state": end.state,
        "reason": end.reason,
        "history": [event.to_json() for event in end.history],
        "metrics": dict(end.metrics),
        "tags": dict(end.tags),
        "tables": {name: table_text(rows) for name, rows in end.tables.items()},
        "artifacts": _digest_of_files(end.artifacts),
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _digest_of_files(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value)[:LONGEST_VALUE] for key, value in values.items()}


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:LONGEST_VALUE]


@contextmanager
def _reported(uri: str) -> Iterator[None]:
    """Turns what a store that is away, broken or no MLflow raises into TrackingError."""
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
    """The system's own error, which is short, where a network or a disk is behind it."""
    deepest = error
    while (inner := deepest.__cause__ or deepest.__context__) is not None:
        deepest = inner
    return deepest if isinstance(deepest, OSError) else error
