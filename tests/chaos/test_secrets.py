"""Secrets are in nothing that a sweep writes: all its files are searched byte by byte.

The markers are a password in the tracking URI and the value of every variable that holds a
credential. The same sweep shows that MLflow rebuilt from the folder equals what was written live.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.tiny_sweep import REPOSITORY, command, environment, mapping, write_space
from tests.orchestrator.tracking.mlflow_servers import free_port, mlflow_server
from tests.orchestrator.tracking.tracked_runs import snapshot
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow
MARKER = "s3cret-marker-7f1c"
VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server's address, and the folder of its store and its log."""
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as uri:
        yield uri, folder


@pytest.fixture(scope="module")
def rays_own() -> Iterator[Path]:
    """The folder of Ray's logs; one under pytest's would be too long for its sockets."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Swept:
    """What two starts of a sweep said, and what MLflow held after the first."""

    said: str
    live: dict[str, dict[str, Any]]
    rebuilt: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def swept(tiny_model: Path, storage: Path, server: tuple[str, Path], rays_own: Path) -> Swept:
    """A sweep that mirrors to a server, and then, resumed with one more trial, to an address
    where there is none."""
    two = mapping(str(tiny_model), search={"algorithm": "random", "trials": 2})
    space, run = write_space(storage / "tiny.yaml", two), storage / "runs" / "tiny"
    first = _sweep(space, storage / "runs", _with_password(server[0]), ray=rays_own)
    rebuilt = f"sqlite:///{storage}/rebuilt.db"
    _track(run, rebuilt)
    live, anew = snapshot(server[0], "tiny"), snapshot(rebuilt, "tiny")
    away = _with_password(f"http://127.0.0.1:{free_port()}")
    second = _sweep(space, storage / "runs", away, "--trials", "3", ray=rays_own)
    assert "can't be used" in second
    return Swept(first + second, live, anew)


def test_no_file_of_a_sweep_nor_its_output_holds_a_secret(swept: Swept, storage: Path) -> None:
    assert "MLflow: open http://***@127.0.0.1" in swept.said
    assert MARKER not in swept.said
    assert _holding_the_marker(storage) == []
    assert (storage / "runs" / "tiny" / "sweep.json").is_file()


@pytest.mark.usefixtures("swept")
def test_neither_mlflows_store_nor_its_log_holds_a_secret(server: tuple[str, Path]) -> None:
    assert _holding_the_marker(server[1]) == []


@pytest.mark.usefixtures("swept")
def test_rays_own_logs_hold_no_secret(rays_own: Path) -> None:
    assert [*rays_own.rglob("*.log")]
    assert _holding_the_marker(rays_own) == []


def test_mlflow_rebuilt_from_the_folder_equals_what_was_written_live(swept: Swept) -> None:
    assert len(swept.live) >= 4  # the sweep, two trials and baselines
    assert swept.rebuilt == swept.live


def test_what_a_server_has_missed_is_there_after_tracking_anew(
    swept: Swept, server: tuple[str, Path], storage: Path
) -> None:
    _track(storage / "runs" / "tiny", _with_password(server[0]))
    now = snapshot(server[0], "tiny")
    assert len([trial for trial in now.values() if trial["tags"]["role"] == "trial"]) == 3
    assert now.keys() > swept.live.keys()
    assert {trial["status"] for trial in now.values()} == {"FINISHED"}


def _with_password(address: str) -> str:
    return address.replace("http://", f"http://me:{MARKER}@")


def _sweep(space: Path, storage: Path, uri: str, *more: str, ray: Path) -> str:
    done = subprocess.run(
        command(space, storage, "--tracking-uri", uri, *more),
        cwd=REPOSITORY,
        env={**environment(), **dict.fromkeys(VARIABLES, MARKER), "RAY_TMPDIR": str(ray)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _track(run: Path, uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.track", str(run), "--tracking-uri", uri],
        cwd=REPOSITORY,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert MARKER not in done.stdout + done.stderr


def _holding_the_marker(folder: Path) -> list[str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    return [str(file) for file in files if MARKER.encode() in file.read_bytes()]
