"""Promise: Ctrl-C, SIGTERM or SIGHUP saves running trials and prints how to resume; twice ends at
once.

A terminal sends Ctrl-C to the whole process group, and so do these tests.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it carries no types
import pytest

from tests.chaos.disturbed import (
    MARGIN,
    Finished,
    Place,
    Seen,
    again_if_busy,
    at_work,
    check_resumed,
    check_tracking,
    check_whole,
    driver,
    left_alone,
    look,
    nothing_left,
    read,
    statuses,
    until,
)
from tests.conftest import REPOSITORY
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

TRIALS, BASELINES = 4, 2
PROMISED_SECONDS = 10.0  # in the quickstart
LONGEST_SECONDS = 600.0
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Interrupted:
    """How a driver ended that was sent a signal, and what it left."""

    at: float  # when the signal was sent
    telling: list[str]  # trials of its own that had told of a step by then, and had not ended
    after: Seen
    ended: Finished
    seconds: float

    def __str__(self) -> str:
        waited = [self.after.saved_at[name] - self.at for name in self.running]
        saved = f"its {len(waited)} running trials saved within {max(waited, default=0.0):.1f} s"
        return f"ended after {self.seconds:.1f} s, {saved}"

    @property
    def running(self) -> list[str]:
        """Those of `telling` that have not ended since."""
        return [name for name in self.telling if name in self.after.saved_steps]


@again_if_busy
def interrupted(
    place: Place,
    ready: Callable[[Place, Process], bool],
    send: Callable[[int], None],
) -> Interrupted:
    with driver(place) as process:
        until(process, lambda: ready(place, process), seconds=LONGEST_SECONDS)
        telling = [folder.name for folder in place.telling(at_work(place, process) or time.time())]
        began = time.time()
        send(process.pid)
        output, errors = process.communicate(timeout=LONGEST_SECONDS)
        seconds = time.time() - began
    ended = Finished(process.args, process.returncode, output, errors)
    return Interrupted(began, telling, look(place), ended, seconds)


def ctrl_c(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


def ctrl_c_twice(pid: int) -> None:
    ctrl_c(pid)
    time.sleep(0.3)
    ctrl_c(pid)


def terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def hang_up(pid: int) -> None:
    """As a terminal that is closed, whose shell sends it on to the whole process group."""
    os.killpg(pid, signal.SIGHUP)


def terminate_all(pid: int) -> None:
    """As Slurm or systemd, which send it to every process, and as `timeout`, which sends it twice
    to the driver.
    """
    started = psutil.Process(pid).children(recursive=True)
    for process in (*started, psutil.Process(pid)):
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    os.killpg(pid, signal.SIGTERM)


def starts_ray(place: Place, process: Process) -> bool:
    return "resume_command" in place.state


def trains(trials: int) -> Callable[[Place, Process], bool]:
    """As many trials of this driver's own have told of a step and have not ended."""

    def ready(place: Place, process: Process) -> bool:
        since = at_work(place, process)
        return since is not None and len(place.telling(since)) >= trials

    return ready


def writes_the_report(place: Place, process: Process) -> bool:
    return "trials_done" in place.state


def check_saved(place: Place, told: Interrupted) -> None:
    assert told.ended.returncode == 130, told.ended.stdout + told.ended.stderr
    assert "Traceback" not in told.ended.stdout + told.ended.stderr
    assert "Resume with: python -m orchestrator.sweep" in told.ended.stdout
    assert str(place.storage) in told.ended.stdout
    assert not (place.run / "driver.lock").exists()
    runs = statuses(place)
    for name in told.running:
        folder = place.run / "trials" / name
        assert told.after.saved_steps[name] > 0, f"trial {name} has no checkpoint"
        assert told.after.lost_steps[name] == 0, f"trial {name} has told of more than it has saved"
        assert read(folder / "progress.json")["state"] == "interrupted"
        assert runs[name] == "KILLED"
    assert "RUNNING" not in runs.values()
    check_tracking(place, of_unfinished=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("interrupts")
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        budget={"train_examples": 1600, "eval_examples": 8, "seed": 3},
    )
    value["search"] = {"algorithm": "random", "trials": TRIALS, "seed": 5}
    place = Place(tiny_sweep.write_space(folder / "tiny.yaml", value), folder / "runs")
    with nothing_left(place):
        yield place


@pytest.fixture(scope="module")
def story(tiny: Place) -> dict[str, Interrupted]:
    """One sweep that is interrupted again and again, each time by another driver."""
    told: dict[str, Interrupted] = {}
    for name, condition, send in (
        ("SIGHUP while Ray starts", starts_ray, hang_up),
        ("SIGTERM", trains(1), terminate_all),
        ("Ctrl-C twice", trains(1), ctrl_c_twice),
        ("SIGTERM in the report", writes_the_report, terminate),
    ):
        told[name] = interrupted(tiny, condition, send)
        print(f"{name}: {told[name]}", flush=True)
    return told


def test_ctrl_c_in_the_quickstart_saves_every_running_trial_within_seconds(tmp_path: Path) -> None:
    space = REPOSITORY / "search_spaces" / "quickstart.yaml"
    place = Place(space, tmp_path / "runs", predicts=True)
    with nothing_left(place):
        told = interrupted(place, trains(2), ctrl_c)
    print(f"Ctrl-C in the quickstart: {told}", flush=True)
    assert told.running
    check_saved(place, told)
    assert told.seconds < MARGIN * PROMISED_SECONDS


def test_sigterm_to_every_process_saves_every_running_trial(
    tiny: Place, story: dict[str, Interrupted]
) -> None:
    told = story["SIGTERM"]
    assert told.ended.returncode == 130, told.ended.stdout + told.ended.stderr
    assert "Resume with:" in told.ended.stdout
    assert told.running
    for name in told.running:
        assert told.after.saved_steps[name] > 0 and told.after.lost_steps[name] == 0
    assert told.seconds < MARGIN * PROMISED_SECONDS
    check_resumed(tiny, told.after)


def test_sighup_while_ray_starts_ends_the_driver_and_says_how_to_go_on(
    story: dict[str, Interrupted],
) -> None:
    told = story["SIGHUP while Ray starts"]
    assert told.ended.returncode == 130, told.ended.stdout + told.ended.stderr
    assert "Resume with:" in told.ended.stdout + told.ended.stderr
    assert "Traceback" not in told.ended.stdout + told.ended.stderr


def test_ctrl_c_twice_leaves_at_once(tiny: Place, story: dict[str, Interrupted]) -> None:
    told = story["Ctrl-C twice"]
    assert told.ended.returncode == 130, told.ended.stdout + told.ended.stderr
    assert "Traceback" not in told.ended.stdout + told.ended.stderr
    assert told.seconds < MARGIN * PROMISED_SECONDS
    check_resumed(tiny, told.after)


def test_after_all_of_it_the_sweep_ends_as_if_nothing_had_happened(
    tiny: Place, story: dict[str, Interrupted]
) -> None:
    assert story["SIGTERM in the report"].ended.returncode in (0, 130)
    left_alone(tiny, seconds=LONGEST_SECONDS)
    check_whole(tiny, trials=TRIALS, baselines=BASELINES)
