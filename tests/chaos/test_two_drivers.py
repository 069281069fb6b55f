"""Promise: a sweep has one driver. A paused driver that was replaced stops and writes nothing.

Uses the real program with its real heartbeat, so a driver is paused for half a minute. The lease
itself is tested in tests/orchestrator/runs/test_lease.py; that a second driver beside a running one
is refused in tests/test_end_to_end.py.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.runs.lease_holder import HEARTBEAT_SECONDS, MISSED_BEATS_ALLOWED, read_lease
from tests.chaos.disturbed import (
    Finished,
    Place,
    Seen,
    again_if_busy,
    check_resumed,
    check_whole,
    driver,
    look,
    nothing_left,
    until,
)
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

TRIALS, BASELINES = 4, 2
LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class Story:
    """A driver that was paused, and one that took over from it."""

    place: Place
    paused: Finished
    took_over: Finished
    seen: Seen  # when the paused one was woken up


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("drivers")
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        budget={"train_examples": 480, "eval_examples": 8, "seed": 3},
    )
    value["search"] = {"algorithm": "random", "trials": TRIALS, "seed": 5}
    place = Place(tiny_sweep.write_space(folder / "tiny.yaml", value), folder / "runs")
    with nothing_left(place):
        yield _told(place)


@again_if_busy
def _told(place: Place) -> Story:
    with driver(place) as first:
        until(first, lambda: _trains(place), seconds=LONGEST_SECONDS)
        first.send_signal(signal.SIGSTOP)
        time.sleep(HEARTBEAT_SECONDS * (MISSED_BEATS_ALLOWED + 1))
        with driver(place) as second:
            until(second, lambda: _holds(place, second.pid), seconds=LONGEST_SECONDS)
            seen = look(place)
            first.send_signal(signal.SIGCONT)
            paused = _ended(first)
            took_over = _ended(second)
    return Story(place, paused, took_over, seen)


def _trains(place: Place) -> bool:
    return any(look(place).saved_steps.values())


def _holds(place: Place, pid: int) -> bool:
    """It has the lease, and hosts that have begun with some trial."""
    holder = read_lease(place.run / "driver.lock") or {}
    logs = place.run.glob("trials/*/owner.json")
    since = float(holder.get("taken", 0.0))
    return holder.get("pid") == pid and any(log.stat().st_mtime > since > 0 for log in logs)


def _ended(process: subprocess.Popen[str]) -> Finished:
    output, errors = process.communicate(timeout=LONGEST_SECONDS)
    return Finished(process.args, process.returncode, output, errors)


def test_a_paused_driver_that_was_taken_over_says_so_and_stops(story: Story) -> None:
    assert story.paused.returncode == 2, story.paused.stdout + story.paused.stderr
    assert "has taken the sweep over" in story.paused.stderr
    assert "Traceback" not in story.paused.stdout + story.paused.stderr


def test_the_sweep_ends_as_if_there_had_been_one_driver(story: Story) -> None:
    assert story.took_over.returncode == 0, story.took_over.stdout + story.took_over.stderr
    check_resumed(story.place, story.seen)
    check_whole(story.place, trials=TRIALS, baselines=BASELINES)
