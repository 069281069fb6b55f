"""Promise: a sweep on s3:// depends on no machine: killed, it resumes from an empty disk.

Uses the real program, Ray and a real S3 server (moto's). The driver is killed while trials run, the
working copy is deleted, and the same command ends the sweep from an empty disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.runs.lease_holder import parsed
from tests.buckets import new_place, s3_server
from tests.chaos.disturbed import (
    MARK,
    Finished,
    Place,
    _refuse_busy,
    again_if_busy,
    driver_of,
    nothing_left,
    until,
)
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.storage.bucket_store import open_store
from trainables.storage.object_store import ObjectStore
from trainables.storage.sealed_json import verified

pytestmark = pytest.mark.slow

TRIALS, BASELINES = 3, 2
LONGEST_SECONDS = 900.0


@dataclass(frozen=True)
class Machine:
    """A disk of its own, from which the sweep is driven and read."""

    space: Path
    url: str
    cache: Path
    mark: Place
    server: Mapping[str, str]

    @property
    def run_url(self) -> str:
        return f"{self.url}/{self.space.stem}"

    @property
    def environment(self) -> dict[str, str]:
        own = {"SWEEP_CACHE": str(self.cache), MARK: str(self.mark.storage)}
        return {**tiny_sweep.environment(), **self.server, **own}

    def command(self) -> list[str]:
        program = tiny_sweep.command(self.space, Path("unused"))
        return [self.url if word == "unused" else word for word in program]

    def calls(self, module: str) -> Finished:
        return self._run([self.command()[0], "-m", module, self.run_url])

    def sweeps(self) -> Finished:
        return self._run(self.command())

    def _run(self, command: list[str]) -> Finished:
        return subprocess.run(
            command,
            cwd=tiny_sweep.REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )


@dataclass(frozen=True)
class Story:
    """A driver that was killed, a second one that came too early, and one on an empty disk."""

    store: ObjectStore
    refused: Finished
    saved: dict[str, str]  # a trial's last checkpoint at the kill
    resumed: Finished
    status: Finished
    report: Finished
    again: Finished


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("bucket")
    value = tiny_sweep.mapping(
        str(make_llama(folder / "model")),
        budget={"train_examples": 480, "eval_examples": 4, "seed": 3},
    )
    value["search"] = {"algorithm": "random", "trials": TRIALS, "seed": 5}
    value["execution"] = {**value["execution"], "checkpoint_minutes": 0.5 / 60}
    space = tiny_sweep.write_space(folder / "tiny.yaml", value)
    mark = Place(space, folder / "mark")
    with s3_server() as server, pytest.MonkeyPatch.context() as patch, nothing_left(mark):
        for name, given in server.items():
            patch.setenv(name, given)
        yield _told(Machine(space, new_place(), folder / "first", mark, server), folder)


@again_if_busy
def _told(first: Machine, folder: Path) -> Story:
    store = open_store(first.run_url)
    second, third, reader = (_with_disk(first, folder / name) for name in ("2", "3", "reader"))
    lost = nothing_left(first.mark)  # what runs on a machine ends with it
    with lost, driver_of(first.command(), first.environment) as process:
        until(process, lambda: bool(_saved(store)), seconds=LONGEST_SECONDS)
        refused = second.sweeps()
        process.kill()
        process.wait()
        saved = _saved(store)
    shutil.rmtree(first.cache)
    resumed = third.sweeps()
    if resumed.returncode:
        _refuse_busy(resumed.stdout, resumed.stderr)
    status, report = reader.calls("orchestrator.status"), reader.calls("orchestrator.report")
    return Story(store, refused, saved, resumed, status, report, again=reader.sweeps())


def _with_disk(machine: Machine, cache: Path) -> Machine:
    return Machine(machine.space, machine.url, cache, machine.mark, machine.server)


def _saved(store: ObjectStore) -> dict[str, str]:
    """The last checkpoint that counts of each trial that has one and has not ended."""
    keys = sorted(item.key for item in store.list("trials/"))
    ended = {key.split("/")[1] for key in keys if key.endswith("/summary.json")}
    return {
        key.split("/")[1]: key.split("/")[3]
        for key in keys
        if key.endswith("/state.json") and key.split("/")[1] not in ended
    }


def _summaries(store: ObjectStore) -> dict[str, dict[str, Any]]:
    found = {}
    for item in list(store.list("trials/")):
        if item.key.endswith("/summary.json"):
            trial, content = item.key.split("/")[1], store.get(item.key)
            assert content is not None
            found[trial] = verified(content.content, place=f"{trial}/summary.json")
    return found


def test_a_second_driver_is_refused_from_another_disk_while_one_runs(story: Story) -> None:
    assert story.refused.returncode == 2, story.refused.stdout + story.refused.stderr
    assert "is running this sweep" in story.refused.stderr


def test_the_same_command_ends_the_sweep_from_an_empty_disk(story: Story) -> None:
    assert story.resumed.returncode == 0, story.resumed.stdout + story.resumed.stderr
    assert "Resuming: " in story.resumed.stdout
    found = _summaries(story.store)
    assert len(found) == TRIALS + BASELINES
    assert {each["state"] for each in found.values()} <= {"finished", "stopped"}


def test_a_trial_goes_on_from_the_checkpoint_that_was_published(story: Story) -> None:
    assert story.saved
    found = _summaries(story.store)
    for trial in story.saved:
        history = found[trial]["history"]
        steps = [(event["kind"], event["step"]) for event in history]
        assert len(set(steps)) == len(steps)
        if found[trial]["state"] == "finished":
            assert found[trial]["attempts"] >= 2


def test_no_checkpoint_and_nothing_half_written_is_left(story: Story) -> None:
    keys = [item.key for item in story.store.list()]
    assert not [key for key in keys if "/step-" in key or key.startswith(("seen-", "probe-"))]
    lease = story.store.get("driver.lock")
    assert lease is not None
    assert parsed(lease.content) is None


def test_it_is_read_by_its_url_from_any_machine(story: Story) -> None:
    assert story.status.returncode == 0, story.status.stderr
    assert "No driver holds it" in story.status.stdout
    assert story.report.returncode == 0, story.report.stderr
    for trial in _summaries(story.store):
        assert trial[:6] in story.report.stdout
    assert "damaged" not in story.report.stdout


def test_a_sweep_that_has_ended_shows_its_report_and_trains_nothing(story: Story) -> None:
    assert story.again.returncode == 0, story.again.stdout + story.again.stderr
    assert "Starting Ray" not in story.again.stdout


def test_no_key_of_an_account_is_in_what_was_said_or_written(story: Story) -> None:
    told = [each.stdout + each.stderr for each in (story.refused, story.resumed, story.report)]
    assert not [text for text in told if os.environ["AWS_SECRET_ACCESS_KEY"] in text]
