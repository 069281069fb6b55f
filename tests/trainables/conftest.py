"""Fixtures of the worker's tests: tiny bases, specs on them, and trials ready to run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.trials import MakeTrial, TinyTrials


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import make_llama

    return make_llama(tmp_path_factory.mktemp("tiny_llama"))
