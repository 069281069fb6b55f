"""A sweep by its command: interrupted and resumed, then complete, then asked for more.

The real program runs once on its own Ray, and each test reads what it has left: a driver is
interrupted with Ctrl-C, the second completes the sweep while MLflow is unavailable, the third and
the fourth find nothing to do, the fifth is refused, the sixth and the seventh have used up their
hours, and the last has more hours and trials. Kills: test_resume.py.
"""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.runs.lease_holder import read_lease
from orchestrator.runs.results import read_trials
from tests.orchestrator import tiny_sweep
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow

TRIALS, MORE_TRIALS = 4, 5
KNOBS = ("model", "quantization", "rank", "alpha", "learning_rate", "batch_size")
Finished = subprocess.CompletedProcess[str]


@dataclass
class Story:
    """What was seen: `ended[name]` is how a driver ended and `seconds[name]` how long it took."""

    space: Path
    storage: Path
    ended: dict[str, Finished] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    written: dict[str, dict[str, int]] = field(default_factory=dict)  # summaries' mtime_ns
    checkpoints: dict[str, list[str]] = field(default_factory=dict)
    going_on: dict[str, set[str]] = field(default_factory=dict)  # had a checkpoint at the signal

    @property
    def run(self) -> Path:
        return self.storage / self.space.stem

    def runs(self, name: str, *more: str) -> None:
        """A driver that is left alone until its end."""
        began = time.monotonic()
        self.ended[name] = tiny_sweep.sweep(self.space, self.storage, *more)
        self._look(name, began)

    def meets(self, name: str, number: int, *, when: Callable[[int], bool]) -> None:
        """A driver that is sent a signal once `when` is true."""
        driver = subprocess.Popen(
            tiny_sweep.command(self.space, self.storage),
            cwd=tiny_sweep.REPOSITORY,
            env=tiny_sweep.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _wait(when, driver)
            self.going_on[name] = _going_on(self.run)
            began = time.monotonic()
            driver.send_signal(number)
            output, errors = driver.communicate(timeout=60)
        finally:
            driver.kill()
        self.ended[name] = Finished(driver.args, driver.returncode, output, errors)
        self._look(name, began)

    def _look(self, name: str, began: float) -> None:
        self.seconds[name] = time.monotonic() - began
        files = self.run.glob("trials/*/summary.json")
        self.written[name] = {file.parent.name: file.stat().st_mtime_ns for file in files}
        places = self.run.glob("trials/*/checkpoints/step-*")
        self.checkpoints[name] = sorted({place.parent.parent.name for place in places})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    model = make_llama(folder / "model")
    budget = {"train_examples": 240, "eval_examples": 4, "seed": 3}
    execution = {"max_new_tokens": 4, "eval_batch_size": 4, "checkpoint_minutes": 0.002}
    value = tiny_sweep.mapping(str(model), budget=budget, execution=execution)
    value["space"]["rank"] = [2, 3, 4]
    value["scheduler"] = "none"
    told = Story(tiny_sweep.write_space(folder / "tiny.yaml", value), folder / "runs")

    def the_second_driver_was_refused_and_a_trial_is_finished(driver: int) -> bool:
        holder = read_lease(told.run / "driver.lock") or {}
        if "second" not in told.ended and holder.get("pid") == driver:
            told.runs("second")
        return bool(_trained(told.run) and _going_on(told.run))

    told.meets(
        "interrupted", signal.SIGINT, when=the_second_driver_was_refused_and_a_trial_is_finished
    )
    told.runs("resumed", "--tracking-uri", "http://127.0.0.1:9")  # nobody answers there
    told.runs("tracked")
    told.runs("again")
    told.runs("changed", "--set", "space.alpha=16")
    more, hours = ("--trials", str(MORE_TRIALS)), "limits.sweep_hours"
    told.runs("out of hours", *more, "--set", f"{hours}=0.001")
    told.runs("still out of hours", *more, "--set", f"{hours}=0.001")
    told.runs("grown", *more, "--set", f"{hours}=9")
    return told


def test_a_second_driver_is_refused(story: Story) -> None:
    second = story.ended["second"]
    assert second.returncode == 2
    assert "is running this sweep" in second.stderr
    assert "Traceback" not in second.stderr
    assert second.stdout == ""


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(story: Story) -> None:
    interrupted = story.ended["interrupted"]
    assert interrupted.returncode == 130
    assert story.seconds["interrupted"] < 30
    assert "Traceback" not in interrupted.stderr + interrupted.stdout
    line = next(line for line in interrupted.stdout.splitlines() if "Resume with:" in line)
    assert f"of {TRIALS} trials are done" in line
    assert str(story.space) in line and str(story.storage) in line
    unfinished = set(story.checkpoints["interrupted"]) - set(story.written["interrupted"])
    assert unfinished
    assert not (story.run / "driver.lock").exists()


def test_a_resumed_sweep_says_what_is_done(story: Story) -> None:
    assert story.going_on["interrupted"]
    done = len(set(story.written["interrupted"]) & set(_trained(story.run)))
    assert 0 < done < TRIALS
    assert f"{done} of {TRIALS} trials are done" in story.ended["resumed"].stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [("interrupted", "resumed"), ("resumed", "again"), ("resumed", "grown")],
)
def test_finished_trials_are_never_trained_again(story: Story, before: str, after: str) -> None:
    assert story.written[before].items() <= story.written[after].items()


def test_it_ends_with_all_its_trials(story: Story) -> None:
    resumed = story.ended["resumed"]
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    assert len(story.written["resumed"]) == TRIALS + 2
    assert "Traceback" not in resumed.stderr + resumed.stdout


def test_a_trial_goes_on_from_its_checkpoint(story: Story) -> None:
    attempts = [summary["attempts"] for summary in _trained(story.run).values()]
    assert max(attempts) > 1


def test_no_event_is_lost_or_doubled_by_interruptions(story: Story) -> None:
    for summary in _trained(story.run).values():
        rungs = [event for event in summary["history"] if event["kind"] == "rung"]
        assert [event["fraction"] for event in rungs] == [1.0]
        units = [event["units"] for event in summary["history"]]
        assert units == sorted(units)


def test_a_finished_sweep_prints_its_report_and_starts_no_ray(story: Story) -> None:
    again = story.ended["again"]
    assert again.returncode == 0
    assert "Starting Ray" not in again.stdout
    assert "Best" in again.stdout
    assert story.seconds["again"] < 30  # on a machine that does other things as well


def test_a_changed_space_is_refused_with_what_changed(story: Story) -> None:
    changed = story.ended["changed"]
    assert changed.returncode == 2
    assert "space.alpha: was 8" in changed.stderr and "now 16" in changed.stderr
    assert "--name" in changed.stderr
    assert "Traceback" not in changed.stderr


def test_a_sweep_may_be_asked_for_more_trials(story: Story) -> None:
    grown = story.ended["grown"]
    assert grown.returncode == 0, grown.stderr + grown.stdout
    assert f"{TRIALS} of {MORE_TRIALS} trials are done" in grown.stdout
    assert "used up" not in grown.stdout
    assert len(story.written["resumed"]) == TRIALS + 2
    assert len(story.written["grown"]) == MORE_TRIALS + 2


def test_a_sweep_out_of_hours_shows_its_report_until_it_is_given_more(story: Story) -> None:
    over, still = story.ended["out of hours"], story.ended["still out of hours"]
    assert over.returncode == 0, over.stderr  # what had finished has
    assert "used up" in over.stdout
    assert story.written["out of hours"] == story.written["resumed"]
    assert still.returncode == 0, still.stderr
    assert "used up" in still.stdout
    assert "Starting Ray" not in still.stdout


def test_a_tracker_that_can_not_be_reached_is_a_warning_and_is_completed_later(
    story: Story,
) -> None:
    resumed, tracked = story.ended["resumed"], story.ended["tracked"]
    assert "http://127.0.0.1:9 can't be used" in resumed.stdout
    assert "The sweep goes on" in resumed.stdout
    assert tracked.returncode == 0
    assert "Starting Ray" not in tracked.stdout


def test_the_run_folder_holds_what_it_promises(story: Story) -> None:
    run = story.run
    for name in ("sweep.yaml", "results.csv", "report.md", "pareto.png"):
        assert (run / name).stat().st_size > 0, name
    assert yaml.safe_load((run / "sweep.yaml").read_text())["search"]["trials"] == MORE_TRIALS
    assert (story.storage / "mlflow.db").exists()
    assert not [*run.rglob("*.part")], "files half written"


def test_each_trial_holds_what_it_promises(story: Story) -> None:
    folders = [*(story.run / "trials").iterdir()]
    assert len(folders) == MORE_TRIALS + 2
    for folder in folders:
        spec = json.loads((folder / "spec.json").read_text())
        summary = json.loads((folder / "summary.json").read_text())
        assert spec["trial_id"] == summary["trial_id"] == folder.name
        assert summary["state"] == "finished"
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        assert len({json.loads(line)["id"] for line in lines}) == 8
        assert (folder / "worker.log").stat().st_size > 0
        assert (folder / "adapter").is_dir() == (spec["role"] == "trial")
        assert not (folder / "checkpoints").exists()


def test_results_are_named_as_the_space_names_its_knobs(story: Story) -> None:
    with (story.run / "results.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert set(KNOBS) <= rows[0].keys()
    assert {"trial_id", "state", "em_acc", "eval_loss", "train_peak_memory_bytes"} <= rows[0].keys()
    assert {row["trial_id"] for row in rows} == set(tiny_sweep.summaries(story.run))


def test_mlflow_has_one_parent_and_one_nested_run_per_trial(story: Story) -> None:
    runs = _mlflow_runs(story.storage)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parents[0].info.run_id}
    ids = Counter(run.data.tags["trial_id"] for run in nested)
    assert ids == Counter(tiny_sweep.summaries(story.run).keys())
    assert {run.data.tags["sweep_id"] for run in runs} == {parents[0].data.tags["sweep_id"]}
    assert {run.data.tags["state"] for run in nested} == {"finished"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_trial_has_one_label_on_the_terminal_in_the_report_and_in_mlflow(story: Story) -> None:
    found = {item.trial_id: item.label for item in read_trials(RunFolder(story.run))}
    assert len(set(found.values())) == len(found)
    nested = [run for run in _mlflow_runs(story.storage) if run.data.tags["trial_id"] in found]
    assert {run.info.run_name for run in nested} == {
        f"{label} · {trial_id[:6]}" for trial_id, label in found.items()
    }
    told = "".join(ended.stdout for ended in story.ended.values())
    assert all(f"{trial_id} {label}: " in told for trial_id, label in found.items())
    text = (story.run / "report.md").read_text()
    assert any(f"**`{trial_id}`: {label}**" in text for trial_id, label in found.items())


def test_mlflow_has_every_point_of_every_curve_once(story: Story) -> None:
    client = _client(story.storage)
    summaries = tiny_sweep.summaries(story.run)
    for run in _mlflow_runs(story.storage):
        if "mlflow.parentRunId" not in run.data.tags:
            continue
        trial_id = run.data.tags["trial_id"]
        for metric in ("train_loss", "em_acc"):
            told = [
                event["units"]
                for event in summaries[trial_id]["history"]
                if metric in event["metrics"]
            ]
            points = client.get_metric_history(run.info.run_id, metric)
            assert sorted(point.step for point in points) == sorted(set(told)), metric


def _trained(run: Path) -> dict[str, Any]:
    found = tiny_sweep.summaries(run).items()
    return {name: summary for name, summary in found if summary["role"] == "trial"}


def _going_on(run: Path) -> set[str]:
    """Trials that are not done and have a checkpoint to go on from."""
    places = run.glob("trials/*/checkpoints/step-*")
    return {place.parent.parent.name for place in places} - set(tiny_sweep.summaries(run))


def _wait(when: Callable[[int], bool], driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not when(driver.pid):
        assert time.monotonic() < deadline, "the sweep did not get there in 240 seconds"
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)


def _client(storage: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")


def _mlflow_runs(storage: Path) -> list[Any]:
    client = _client(storage)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments))
