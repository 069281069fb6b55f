"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
