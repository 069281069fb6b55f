"""Promise: a sweep goes on whatever happens to its terminal, and shares its own Ray with nobody.

One sweep meets all of it: a terminal of ASCII that goes away, signals that `nohup` had ignored, and
a folder for temporary files whose name is too long for sockets.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.joined_cluster import ray_start
from tests.chaos.disturbed import Place, nothing_left, until
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from tests.trainables.test_standard_streams import ASCII
from trainables.errors import InputError

pytestmark = pytest.mark.slow

SECONDS = 300.0


# As `nohup COMMAND &` in a script.
NOHUP = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_sweep_outlives_its_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = tiny_sweep.mapping(str(make_llama(tmp_path / "model")))
    value["search"] = {"algorithm": "random", "trials": 1}
    value["space"]["quantization"] = "none"
    place = Place(tiny_sweep.write_space(tmp_path / "tiny.yaml", value), tmp_path / "runs")
    temporary = tmp_path / ("x" * 120)
    temporary.mkdir()
    ours, terminal = pty.openpty()
    errors = tmp_path / "errors.txt"
    with nothing_left(place), errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", NOHUP, *place.command()],
            cwd=tiny_sweep.REPOSITORY,
            env=place.environment() | ASCII | {"TMPDIR": str(temporary)},
            stdout=terminal,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        os.close(terminal)
        until(process, lambda: bool(place.begun(0.0)), seconds=SECONDS)
        shown = os.read(ours, 100_000).decode("ascii")
        os.close(ours)
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGHUP)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        with pytest.raises(InputError, match="no `ray start` has left its address in "):
            ray_start("auto", print)
        assert process.wait(SECONDS) == 0, errors.read_text()
    assert "TMPDIR is too long a name for sockets" in shown
    assert "going on without it" in errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert {each["state"] for each in place.summaries().values()} == {"finished"}
    assert (place.run / "report.md").exists()
