"""Fixtures for all tests, and settings of the whole pytest process."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

pytest_plugins = ("tests.suite_times",)


def pytest_configure() -> None:
    """Enables SIGINT for tests and their child processes.

    A shell script starts its background jobs, and so possibly pytest, with SIGINT ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets (SWEEP_DATA, or `shared/data` beside the repository)."""
    folder = Path(os.environ.get("SWEEP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "finqa").is_dir():
        pytest.skip(f"real data are not at {folder}; set SWEEP_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a node keeps (SWEEP_CACHE) does not come from earlier runs of the tests."""
    os.environ["SWEEP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def base_models() -> Path:
    """The folder of the embedded base models."""
    return REPOSITORY / "base_models"


@pytest.fixture(scope="session")
def warm_process() -> None:
    """Imports the libraries of trials and excludes their objects from garbage collection.

    `HostProcess.warm_up` does the same: each trial ends with a collection, which else takes 0.4 s.
    """
    from trainables.models.base import warm_imports

    warm_imports()
    gc.collect()
    gc.freeze()
