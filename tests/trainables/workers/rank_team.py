"""Runs a trial on several ranks, each a process of its own, over gloo on this machine."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from trainables.spec.events import Event
from trainables.spec.trial_spec import TrialSpec
from trainables.storage.trial_folder import TrialFolder

SECONDS = 400  # DeepSpeed compiles something at its first use
_RANK_PROCESS = "tests.trainables.workers.rank_process"
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([_RANK_PROCESS])


def run_team(
    spec: TrialSpec, folder: Path, **leaves_at: int
) -> tuple[TrialFolder, list[list[Event]]]:
    """The trial's folder and what each rank has told; ranks that were to be killed, until then.

    `leaves_at`: the step `leave_at` or `die_at` of `rank_process.Rank`.
    """
    place = TrialFolder(folder / spec.trial_id)
    if not place.spec_file.exists():
        place.write_spec(spec, suggestion={})
    outputs = [folder / f"rank-{rank}.jsonl" for rank in range(int(spec.knobs.get("workers", 1)))]
    codes = run_ranks([(place.path, out) for out in outputs], folder, **leaves_at)
    expected = -9 if "die_at" in leaves_at else 0
    assert codes == [expected] * len(outputs), log(folder)
    return place, [_events(out) for out in outputs]


def run_ranks(places: Sequence[tuple[Path, Path]], folder: Path, **leaves_at: int) -> list[int]:
    """A rank for each trial folder and file for its events; their exit codes."""
    ranks = _start(places, folder / "ranks.log", leaves_at)
    try:
        for rank in ranks:
            rank.join(SECONDS)
        return [-1 if rank.exitcode is None else rank.exitcode for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def log(folder: Path) -> str:
    return (folder / "ranks.log").read_text()[-4000:]


def _start(
    places: Sequence[tuple[Path, Path]], output: Path, leaves_at: Mapping[str, int]
) -> list[ForkServerProcess]:
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(len(places)),
        "LOCAL_WORLD_SIZE": str(len(places)),
    }
    ranks = []
    for rank, (folder, out) in enumerate(places):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        given = (folder, out, leaves_at, own, output)
        ranks.append(_FORKS.Process(target=_run_rank, args=given))
        ranks[-1].start()
    return ranks


def _run_rank(
    folder: Path, out: Path, leaves_at: Mapping[str, int], own: Mapping[str, str], output: Path
) -> None:
    """In the forked process, whose output goes to the file."""
    from tests.trainables.workers.rank_process import Rank

    with output.open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    os.environ |= own
    Rank(folder, out, **leaves_at).run()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _events(file: Path) -> list[Event]:
    return [Event.from_json(json.loads(line)) for line in file.read_text().splitlines()]
