"""Runs a trial on several ranks, each a process of its own, over gloo on this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trainables.spec.events import Event
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
SECONDS = 400  # DeepSpeed compiles something at its first use


def run_team(spec: TrialSpec, folder: Path, *options: str) -> tuple[TrialFolder, list[list[Event]]]:
    """The trial's folder and what each rank has told; ranks that were to be killed, until then."""
    place = TrialFolder(folder / spec.trial_id)
    if not place.spec_file.exists():
        place.write_spec(spec, suggestion={})
    size = int(spec.knobs.get("workers", 1))
    outputs = [folder / f"rank-{rank}.jsonl" for rank in range(size)]
    codes = run_ranks([[str(place.path), str(out), *options] for out in outputs], folder)
    expected = -9 if "--die-at" in options else 0
    assert codes == [expected] * size, log(folder)
    return place, [_events(out) for out in outputs]


def run_ranks(arguments: Sequence[Sequence[str]], folder: Path) -> list[int]:
    """A rank for each list of arguments; their exit codes."""
    with (folder / "ranks.log").open("a") as output:
        ranks = _start(arguments, output.fileno())
        try:
            return [rank.wait(timeout=SECONDS) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()


def log(folder: Path) -> str:
    return (folder / "ranks.log").read_text()[-4000:]


def _start(arguments: Sequence[Sequence[str]], output: int) -> list[subprocess.Popen[bytes]]:
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(len(arguments)),
        "LOCAL_WORLD_SIZE": str(len(arguments)),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.trainables.workers.rank_process"]
    return [
        subprocess.Popen(
            [*command, *given],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        for rank, given in enumerate(arguments)
    ]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _events(file: Path) -> list[Event]:
    return [Event.from_json(json.loads(line)) for line in file.read_text().splitlines()]
