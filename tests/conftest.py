"""Fixtures that every test may use, and what holds for the whole of pytest."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

pytest_plugins = ("tests.suite_times",)


def pytest_configure() -> None:
    """Ctrl-C is heard in tests and by what they start, also where pytest was started in a script's
    background: SIGINT is ignored there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real datasets (SWEEP_DATA, or `shared/data` beside the repository)."""
    folder = Path(os.environ.get("SWEEP_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "finqa").is_dir():
        pytest.skip(f"real data are not at {folder}; set SWEEP_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def base_models() -> Path:
    """The folder of the embedded base models."""
    return REPOSITORY / "base_models"


@pytest.fixture(scope="session")
def warm_process() -> None:
    """What trials import is imported, and no garbage collection of a test looks through it.

    As in a host (`HostProcess.warm_up`): each trial's end collects, which takes 0.4 s otherwise.
    """
    from trainables.models.base import warm_imports

    warm_imports()
    gc.collect()
    gc.freeze()
