"""Allocations that really fail, in a process with a capped address space."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.short_memory import EXAMPLES

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space can be capped on Linux only")
def test_an_automatic_batch_size_fits_itself_where_an_explicit_one_is_infeasible(
    tiny_llama: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.short_memory", str(tiny_llama), str(tmp_path), "300"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    rows = told["auto"]["executed_batch_size"]
    assert 1 <= rows < EXAMPLES
    assert told["auto"]["executed_gradient_accumulation"] == math.ceil(EXAMPLES / rows)
    assert told["explicit"]["infeasible"]
    assert "can't allocate memory" in told["explicit"]["reason"]
