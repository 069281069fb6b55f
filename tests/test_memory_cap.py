"""A sweep of which a third does not fit, on a host with a memory cap: no trial exceeds the cap."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_models import make_llama

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGURATIONS = 20
CAP_MEBIBYTES, HOST_MEBIBYTES = 136, 44  # a host's own: heaps in parts, what a profiler records
ONE_HEAP = {  # what is freed goes back to the system, so that the cap is one of what is in use
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the address space can be capped on Linux only")
def test_nothing_runs_out_of_memory_and_hardly_anything_is_refused_that_would_have_fitted(
    tmp_path: Path,
) -> None:
    model = make_llama(tmp_path / "model", hidden_size=256)
    command = [sys.executable, "-m", "tests.memory_cap", str(model), str(tmp_path / "run")]
    done = subprocess.run(
        [*command, str(CAP_MEBIBYTES), str(HOST_MEBIBYTES)],
        cwd=REPOSITORY,
        env={**os.environ, **ONE_HEAP},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["other"] == []
    assert told["out_of_memory"] == 0
    assert 0.3 <= told["refused"] / CONFIGURATIONS <= 0.4
    assert all("are available" in reason for reason in told["reasons"])
    would_fit = told["fitted"] + told["would_have_fitted"]
    assert told["would_have_fitted"] <= 0.05 * would_fit
