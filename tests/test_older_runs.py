"""Promise: run folders of an older commit are read and resumed as by that commit.

`older_runs/COMMIT` contains a finished and an interrupted run of that commit, the output of its
commands for them, and how they were made. This test uses only commands and files, no module of the
project: modules may move, but files on a user's disk and the output of commands may not change.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
OLDER = Path(__file__).resolve().parent / "older_runs" / "0937287"
PLANNED: dict[str, list[str]] = json.loads((OLDER / "trials.json").read_text())
MODEL, REVISION = "embedded/small", "0937287" + 33 * "0"
STORE = "sqlite:///mlflow.db"
UNLIKE_ELSEWHERE = (".system.", ".provenance.git_dirty.")  # hang on the machine, on the checkout
CHANCES = 3  # that Ray, which waits for itself for 30 seconds only, gets to start on a busy machine
Finished = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Place:
    """A working directory with copies of the older runs in `runs`, as they were made in one."""

    path: Path

    def run(self, name: str) -> Path:
        return self.path / "runs" / name

    def trial(self, name: str, trial_id: str) -> Path:
        return self.run(name) / "trials" / trial_id

    def says(self, program: str, name: str, *more: str) -> str:
        """What a program that reads a run folder prints, with its paths as they were written."""
        done = self._runs([program, f"runs/{name}", *more])
        assert done.returncode == 0, done.stdout + done.stderr
        return self.normalised(done.stdout)

    def sweeps(self, name: str) -> Finished:
        """The command line that made the run, once more."""
        arguments = ["sweep", f"{name}.yaml", "--name", name, "--storage", "runs"]
        for _ in range(CHANCES):
            done = self._runs([*arguments, "--tracking-uri", STORE, "--address", "local"])
            if "timed out during startup" not in done.stderr:
                break
        return done

    def normalised(self, text: str) -> str:
        """The one thing that differs between two readings of a run: where it lies.

        Times, memory and devices in a report are those that the run's files tell of.
        """
        return text.replace(f"{self.path}/", "")

    def _runs(self, arguments: list[str]) -> Finished:
        program, *more = arguments
        return subprocess.run(
            [sys.executable, "-m", f"orchestrator.{program}", *more],
            cwd=self.path,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        """A CPU, a hub's cache of our own, and no terminal whatever the tests run in."""
        own = {
            "PYTHONPATH": str(REPOSITORY),
            "HF_HOME": str(self.path / "hub_home"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        others = ("FORCE_COLOR", "TTY_COMPATIBLE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
        kept = {name: value for name, value in os.environ.items() if name not in others}
        return {**kept, **own}


@dataclass
class Story:
    """A run folder before a command, what the command said, and the folder after it."""

    place: Place
    before: Mapping[str, bytes]
    done: Finished
    after: Mapping[str, bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, base_models: Path) -> Place:
    """Copies that are only read, or written to by reports."""
    return copied(tmp_path_factory.mktemp("read"), base_models)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory, base_models: Path) -> Story:
    """The command of the finished run, run again."""
    return told(copied(tmp_path_factory.mktemp("again"), base_models), "finished")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, base_models: Path) -> Story:
    """The command of the interrupted run, run again: it ends the sweep."""
    return told(copied(tmp_path_factory.mktemp("resumed"), base_models), "interrupted")


def told(place: Place, name: str) -> Story:
    before = contents(place.run(name))
    done = place.sweeps(name)
    return Story(place, before, done, contents(place.run(name)))


def copied(folder: Path, base_models: Path) -> Place:
    """Copies of both runs, their spaces, and the model that they call the hub's.

    A run tells in which order its trials were planned by the times of their specs, which neither
    git nor a copy keeps.
    """
    place = Place(folder.resolve())
    for name in ("finished", "interrupted"):
        shutil.copy(OLDER / f"{name}.yaml", place.path)
        shutil.copytree(OLDER / name, place.run(name))
        for second, trial_id in enumerate(PLANNED[name], start=1_700_000_000):
            os.utime(place.trial(name, trial_id) / "spec.json", (second, second))
    cache = place.path / "hub_home" / "hub" / f"models--{MODEL.replace('/', '--')}"
    shutil.copytree(base_models / "small", cache / "snapshots" / REVISION)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(REVISION)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text())
    return value


def expected(name: str) -> str:
    return (OLDER / f"expected_{name}").read_text()


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Every key in a JSON value, nested ones by their path; events by their kind."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{path}.{name}"
            yield from keys(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            kind = item.get("kind", "") if isinstance(item, Mapping) else ""
            yield from keys(item, f"{path}[{kind}]")


def keys_of(file: Path) -> set[str]:
    """The keys of a file of JSON, or of lines of JSON, that are the same on every machine."""
    lines = file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]
    found = {key for line in lines for key in keys(json.loads(line))}
    return {key for key in found if not any(part in f"{key}." for part in UNLIKE_ELSEWHERE)}


def lost_keys(older: Path, newer: Path, *, is_quantized: bool) -> set[str]:
    """Keys of the older file that the newer one lacks, and should have.

    A trial on a fast machine may tell of no progress between its rungs, and one without
    quantization has no knob of it.
    """
    wanted, found = keys_of(older), keys_of(newer)
    if not any("[progress]" in key for key in found):
        wanted = {key for key in wanted if "[progress]" not in key}
    if not is_quantized:
        wanted = {key for key in wanted if not key.endswith(".double_quantization")}
    return wanted - found


def ended_trials(run: Path) -> dict[str, dict[str, Any]]:
    """The summaries of trained trials, by their ids."""
    found = {file.parent.name: read(file) for file in run.glob("trials/*/summary.json")}
    return {name: item for name, item in found.items() if item["role"] == "trial"}


def tracked_trials(place: Place) -> set[str]:
    """The trials that MLflow has runs of."""
    with sqlite3.connect(place.path / "mlflow.db") as database:
        rows = database.execute("select value from tags where key = 'trial_id'").fetchall()
    return {str(row[0]) for row in rows} - {"sweep"}


def test_the_folders_are_as_the_older_commit_left_them() -> None:
    """Guards the fixture itself: what the other tests rely on is in it."""
    states = [item["state"] for item in ended_trials(OLDER / "finished").values()]
    assert sorted(set(states)) == ["finished", "stopped"]
    assert [*ended_trials(OLDER / "interrupted")] == ["476eab467d2e"]
    assert [*(OLDER / "interrupted").glob("trials/*/checkpoints/step-*/state.json")]
    for name in ("finished", "interrupted"):
        folders = {folder.name for folder in (OLDER / name / "trials").iterdir()}
        assert folders == set(PLANNED[name])
        for summary in ended_trials(OLDER / name).values():
            assert summary["provenance"]["git_commit"].startswith(OLDER.name)
            assert summary["provenance"]["git_dirty"] == "false"


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_the_report_is_the_older_one_byte_for_byte(place: Place, name: str) -> None:
    which = "" if name == "finished" else "interrupted_"
    assert place.says("report", name) == expected(f"{which}report.txt")
    written = (place.run(name) / "report.md").read_text()
    assert place.normalised(written) == expected(f"{which}report.md")
    for table in ("results.csv", "flips.csv"):
        assert (place.run(name) / table).read_bytes() == (OLDER / name / table).read_bytes()


def test_the_status_is_the_older_one(place: Place) -> None:
    assert place.says("status", "finished") == expected("status.txt")
    assert place.says("status", "interrupted") == expected("interrupted_status.txt")


def test_the_answer_to_a_question_is_the_older_one(place: Place) -> None:
    assert place.says("ask", "finished", "--gpu-memory", "12GiB") == expected("ask.txt")


@pytest.mark.slow
def test_a_finished_sweep_run_again_prints_its_report(again: Story) -> None:
    assert again.done.returncode == 0, again.done.stderr
    assert "Traceback" not in again.done.stderr
    written = again.after["report.md"].decode()
    assert again.place.normalised(written) == expected("report.md")
    heading = "\nWhere it lies\n"  # the table below it is as wide as its paths are long
    printed = again.place.normalised(again.done.stdout)
    assert printed.partition(heading)[0] == expected("report.txt").partition(heading)[0]


@pytest.mark.slow
def test_a_finished_sweep_run_again_trains_nothing(again: Story) -> None:
    assert "Starting Ray" not in again.done.stdout
    trials = {name: told for name, told in again.after.items() if name.startswith("trials/")}
    assert trials == {
        name: told for name, told in again.before.items() if name.startswith("trials/")
    }
    assert tracked_trials(again.place) == set(PLANNED["finished"])


@pytest.mark.slow
def test_the_interrupted_sweep_is_ended_by_the_same_command(resumed: Story) -> None:
    assert resumed.done.returncode == 0, resumed.done.stdout + resumed.done.stderr
    assert "Traceback" not in resumed.done.stdout + resumed.done.stderr
    assert "1 of 4 trials are done" in resumed.done.stdout
    run = resumed.place.run("interrupted")
    assert "4 of 4 trials are done" in (run / "report.md").read_text()
    assert not [*run.rglob("*.damaged"), *run.rglob("*.part"), *run.glob("driver.lock")]
    assert tracked_trials(resumed.place) == set(PLANNED["interrupted, then ended"])


@pytest.mark.slow
def test_its_trials_are_those_that_the_older_commit_would_have_run(resumed: Story) -> None:
    """A trial's id is a hash of all that decides its result: another rule would give others."""
    run = resumed.place.run("interrupted")
    assert {folder.name for folder in (run / "trials").iterdir()} == set(
        PLANNED["interrupted, then ended"]
    )
    for name, content in resumed.before.items():
        if name.endswith("/spec.json"):
            assert resumed.after[name] == content, name


@pytest.mark.slow
def test_what_had_ended_is_not_trained_again(resumed: Story) -> None:
    summaries = [name for name in resumed.before if name.endswith("/summary.json")]
    assert len(summaries) == 2  # a trial and a baseline
    for summary in summaries:
        folder = summary.removesuffix("summary.json")
        for name, content in resumed.before.items():
            if name.startswith(folder):
                assert resumed.after[name] == content, name
        assert f"{folder}worker.log" not in resumed.after, "a worker has begun it anew"


@pytest.mark.slow
def test_the_interrupted_trial_goes_on_from_its_checkpoint(resumed: Story) -> None:
    checkpoints = sorted((OLDER / "interrupted").glob("trials/*/checkpoints/step-*/state.json"))
    saved = read(checkpoints[-1])
    old = saved["state"]["progress"]
    trial = resumed.place.trial("interrupted", checkpoints[-1].parts[-4])
    summary = read(trial / "summary.json")
    assert summary["state"] == "finished"
    assert summary["attempts"] == old["attempts"] + 1
    assert [event["kind"] for event in old["history"]] == ["progress", "progress", "rung"]
    assert summary["history"][: len(old["history"])] == old["history"]
    later = summary["history"][len(old["history"]) :]
    assert [event["step"] > saved["step"] for event in later] == len(later) * [True]
    assert later[-1]["kind"] == "rung" and later[-1]["fraction"] == 1.0
    assert summary["times"]["first_step"] == old["first_step_time"]
    assert not [*trial.glob("checkpoints/step-*")]


@pytest.mark.slow
def test_a_resumed_trial_writes_every_file_and_key_that_the_older_commit_wrote(
    resumed: Story,
) -> None:
    """More may be added; nothing that a reader may rely on goes, or gets another name."""
    run = resumed.place.run("interrupted")
    (older_id,) = ended_trials(OLDER / "interrupted")
    older = OLDER / "interrupted" / "trials" / older_id
    ended = {name: item for name, item in ended_trials(run).items() if item["state"] == "finished"}
    assert "527f2ccb1f59" in ended  # the one that was interrupted
    for trial_id, summary in ended.items():
        newer = run / "trials" / trial_id
        assert contents(older).keys() <= contents(newer).keys()
        is_quantized = summary["configuration"]["quantization"] != "none"
        for file in (*older.glob("*.json"), *older.glob("*.jsonl")):
            lost = lost_keys(file, newer / file.name, is_quantized=is_quantized)
            assert not lost, f"{trial_id}/{file.name}"


@pytest.mark.slow
def test_scores_on_the_report_split_and_what_the_sweep_remembers_have_their_older_keys(
    resumed: Story,
) -> None:
    run, finished = resumed.place.run("interrupted"), OLDER / "finished"
    best = finished / "trials" / "7e56894f674e" / "report.json"
    scored = [name for name in ended_trials(run) if (run / "trials" / name / best.name).exists()]
    assert scored
    for name in scored:
        trial = run / "trials" / name
        assert keys_of(best) <= keys_of(trial / best.name)
        answers = "report_predictions.jsonl"
        assert keys_of(best.with_name(answers)) <= keys_of(trial / answers)
    assert keys_of(finished / "sweep.json") <= keys_of(run / "sweep.json")


def test_the_command_that_the_older_commit_says_to_resume_with_is_the_one_tested_here() -> None:
    for name in ("finished", "interrupted"):
        command = shlex.split(read(OLDER / name / "sweep.json")["resume_command"])
        made = ["python", "-m", "orchestrator.sweep", f"{name}.yaml", "--name", name]
        assert command == [*made, "--tracking-uri", STORE, "--address", "local"]
