"""Promise: a sweep with trials of two workers is interrupted, killed and resumed like any other.

The first driver gets Ctrl-C while a trial's workers train, the second SIGKILL, the third is left
alone. In each trial two real processes train together; ASHA stops one trial at least.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import psutil  # type: ignore[import-untyped]
import pytest

from tests.chaos.disturbed import (
    Finished,
    Place,
    Seen,
    again_if_busy,
    check_resumed,
    check_whole,
    driver,
    left,
    left_alone,
    look,
    nothing_left,
    reached,
    read,
    statuses,
    trained_seconds,
)
from tests.chaos.test_interrupts import ctrl_c
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama

pytestmark = pytest.mark.slow

TRIALS, BASELINES = 4, 1
CHECKPOINT_SECONDS = 0.5
TRAIN_EXAMPLES = 800
FREED_WITHIN_SECONDS = 5.0
GONE_WITHIN_SECONDS = 60.0  # raylets look for their driver now and then
LONGEST_SECONDS = 900.0


@dataclass
class Freed:
    """Seconds from a summary that says a trial was stopped until none of its workers was left."""

    seconds: list[float] = field(default_factory=list)


@dataclass
class Story:
    place: Place
    interrupted: Finished
    after_ctrl_c: Seen
    left_by_ctrl_c: list[str]
    files_of_train_after_ctrl_c: list[Path]
    after_kill: Seen
    left_by_kill: list[str]
    last: Finished
    freed: Freed
    left_at_last: list[str]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("gangs")
    place = Place(_space(folder), folder / "runs")
    with nothing_left(place), _watched(place) as freed:
        interrupted = _met_by_ctrl_c(place)
        after_ctrl_c, left_by_ctrl_c = look(place), _still_there(place)
        files_of_train = [*place.run.glob("trials/*/ray_train")]
        after_kill = _killed(place)
        left_by_kill = _still_there(place, "RayTrainWorker")
        last = left_alone(place, seconds=LONGEST_SECONDS)
        yield Story(
            place,
            interrupted,
            after_ctrl_c,
            left_by_ctrl_c,
            files_of_train,
            after_kill,
            left_by_kill,
            last,
            freed,
            _still_there(place),
        )


def test_ctrl_c_saves_what_the_workers_have_done(story: Story) -> None:
    told = story.interrupted
    assert told.returncode == 130, told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr and "Resume with:" in told.stdout
    saved = story.after_ctrl_c.saved_steps
    assert max(saved.values()) > 0
    assert set(story.after_ctrl_c.lost_steps.values()) == {0}
    assert story.files_of_train_after_ctrl_c == []  # the driver has waited for the workers' end


def test_what_had_ended_or_was_saved_is_not_done_again(story: Story) -> None:
    for seen in (story.after_ctrl_c, story.after_kill):
        check_resumed(story.place, seen)
    assert any(step > 0 for step in story.after_kill.saved_steps.values())


def test_the_third_start_ends_as_if_nothing_had_been(story: Story) -> None:
    check_whole(story.place, trials=TRIALS, baselines=BASELINES)
    found = story.place.summaries()
    trials = {name: item for name, item in found.items() if item["role"] == "trial"}
    assert {item["configuration"]["workers"] for item in trials.values()} == {2}
    met = {
        name
        for seen in (story.after_ctrl_c, story.after_kill)
        for name, step in seen.saved_steps.items()
        if step > 0
    }
    assert met <= trials.keys() and met
    # the summary of a trial that was stopped early does not count its attempts
    assert all(trials[name]["attempts"] > 1 for name in met if trials[name]["state"] == "finished")
    assert set(statuses(story.place).values()) == {"FINISHED"}
    assert not [*story.place.run.glob("trials/*/ray_train"), *story.place.run.rglob("checkpoints")]


def test_the_user_is_told_of_no_crash_where_workers_only_end(story: Story) -> None:
    told = story.last.stdout + story.last.stderr
    assert "worker died" not in told and "Traceback" not in told, told


def test_a_stopped_trial_frees_its_workers_at_once(story: Story) -> None:
    states = [item["state"] for item in story.place.summaries().values()]
    assert "stopped" in states
    print(f"workers were freed after {story.freed.seconds} s", flush=True)
    assert story.freed.seconds and max(story.freed.seconds) < FREED_WITHIN_SECONDS


def test_no_process_is_left_by_any_of_them(story: Story) -> None:
    assert story.left_by_ctrl_c == []
    assert story.left_by_kill == []
    assert story.left_at_last == []


def _space(folder: Path) -> Path:
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        budget={"train_examples": TRAIN_EXAMPLES, "eval_examples": 4, "seed": 3},
        search={"algorithm": "grid", "trials": TRIALS},
        execution={
            "max_new_tokens": 4,
            "eval_batch_size": 4,
            "checkpoint_minutes": CHECKPOINT_SECONDS / 60,
        },
    )
    more = {"workers": 2, "batch_size": 2, "quantization": "none", "rank": 2}
    # Whichever of the first two is judged first, the last is stopped.
    value["space"] |= {**more, "learning_rate": [3.0e-3, 1.0e-7, 4.0e-3, 2.0e-7]}
    return tiny_sweep.write_space(folder / "gangs.yaml", value)


@again_if_busy
def _met_by_ctrl_c(place: Place) -> Finished:
    with driver(place) as process:
        assert reached(place, process, _has_trained, seconds=LONGEST_SECONDS)
        ctrl_c(process.pid)
        output, errors = process.communicate(timeout=LONGEST_SECONDS)
    return Finished(process.args, process.returncode, output, errors)


@again_if_busy
def _killed(place: Place) -> Seen:
    with driver(place) as process:
        assert reached(place, process, _has_trained, seconds=LONGEST_SECONDS)
        process.kill()
        process.wait()
        return look(place)


def _has_trained(place: Place, since: float) -> bool:
    """Workers of the driver's own train, for longer than is between two checkpoints, and have most
    of their trial to go: on a busy machine it may end before they are interrupted."""
    return any(
        trained_seconds(folder) > CHECKPOINT_SECONDS
        and read(folder / "progress.json")["units"] < TRAIN_EXAMPLES / 2
        and _trains_on_two(folder)
        for folder in place.telling(since)
    )


def _trains_on_two(folder: Path) -> bool:
    return bool(read(folder / "spec.json")["knobs"].get("workers", 1) == 2)


@contextmanager
def _watched(place: Place) -> Iterator[Freed]:
    """Looks meanwhile how long workers are there after their trial was stopped."""
    freed, over = Freed(), Event()
    watcher = Thread(target=_watch, args=(place, freed, over))
    watcher.start()
    try:
        yield freed
    finally:
        over.set()
        watcher.join()


def _watch(place: Place, freed: Freed, over: Event) -> None:
    seen = _stopped(place)
    while not over.wait(0.05):
        for _ in _stopped(place) - seen:
            began = time.monotonic()
            mine = _workers(place)
            while any(each.is_running() for each in mine) and not over.wait(0.05):
                pass
            freed.seconds.append(time.monotonic() - began)
        seen = _stopped(place)


def _stopped(place: Place) -> set[Path]:
    files = place.run.glob("trials/*/summary.json")
    return {file for file in files if read(file).get("state") == "stopped"}


def _workers(place: Place) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in left(place) if "RayTrainWorker" in _name(pid)]


def _still_there(place: Place, kind: str = "") -> list[str]:
    """What the drivers of a place have left when it has had time to end by itself."""
    end = time.monotonic() + GONE_WITHIN_SECONDS
    while (names := _names(place, kind)) and time.monotonic() < end:
        time.sleep(0.2)
    return names


def _names(place: Place, kind: str) -> list[str]:
    return [name for pid in left(place) if kind in (name := _name(pid))]


def _name(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
