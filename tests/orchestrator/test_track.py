"""orchestrator.track: MLflow rebuilt from the folder equals MLflow written live."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.execution.observers import TrackerWatcher
from orchestrator.runs.lease import Lease
from orchestrator.track import main
from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.sqlite_store import sqlite_file
from orchestrator.tracking.sync import end_sweep, mirror, mirror_later, sweep_identity
from tests.orchestrator.run_builder import label_of
from tests.orchestrator.tracking.mlflow_servers import WeatherServer, free_port, mlflow_server
from tests.orchestrator.tracking.tracked_runs import records, snapshot, tracked_run
from trainables.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One sqlite store for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


def _written_live(run: RunFolder, uri: str) -> None:
    """What a driver does while a sweep runs, with its trials side by side."""
    tracker = BackgroundTracker(MLflowTracker(uri), warn=pytest.fail, close_seconds=300)
    watcher = TrackerWatcher(tracker, label_of)
    tracker.open(sweep_identity(run))
    trials = records(run)
    for record in trials:
        watcher.trial_started(record)
    for place in range(max(len(record.history) for record in trials)):
        for record in trials:
            watcher.trial_events(record, record.history[place : place + 1])
    for record in trials:
        watcher.trial_ended(record)
    mirror_later(run, tracker, is_driven=False)
    end_sweep(run, tracker, state="finished")
    assert not tracker.incomplete


def _track(run: RunFolder, uri: str) -> int:
    return main([str(run.path), "--tracking-uri", uri])


def _forget_places() -> None:
    """Makes MLflow's client ask the store where artifacts lie, as in a process of its own."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


@pytest.mark.slow
def test_it_equals_what_was_written_while_the_sweep_ran(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = tracked_run(tmp_path / "live" / "same")
    _written_live(live, store)
    written = snapshot(store, "same")
    assert {shown["status"] for shown in written.values()} == {"FINISHED", "FAILED"}
    uri = f"sqlite:///{tmp_path}/other/mlflow.db"
    for _ in range(2):  # into an empty store, and into a full one
        assert _track(live, uri) == 0
        assert snapshot(uri, "same") == written
    assert "6 of 6" not in capsys.readouterr().err
    assert _track(live, store) == 0
    assert snapshot(store, "same") == written


def test_every_trial_has_its_curves_tables_and_adapter(store: str, tmp_path: Path) -> None:
    run = tracked_run(tmp_path / "whole", trials=4, events=3)
    assert _track(run, store) == 0
    shown = snapshot(store, "whole")
    best, stopped, failed, *_ = records(run)
    points = shown[best.trial_id]["points"]
    assert [points["train_loss", step] for step in (8, 16, 24)] == pytest.approx([8 / 3, 7 / 3, 2])
    assert points["system/cpu_utilization_percentage", 8] == 50.0
    assert shown[best.trial_id]["points_count"] == len(points)
    assert shown[best.trial_id]["artifacts"] == [
        "adapter/adapter_config.json",
        "predictions.json",
        "report_predictions.json",
        "spec.json",
        "summary.json",
        "worker.log",
    ]
    assert "predictions.json" in shown[stopped.trial_id]["artifacts"]
    assert shown[failed.trial_id]["tags"]["reason"] == "loss is nan"
    assert shown["sweep"]["artifacts"] == ["report.md", "sweep.yaml"]
    assert shown["sweep"]["tags"]["state"] == "finished"


def test_a_damaged_adapter_is_left_out(store: str, tmp_path: Path) -> None:
    run = tracked_run(tmp_path / "unfit", trials=1)
    folder = next(folder for folder in run.trials() if folder.adapter_folder.exists())
    (folder.adapter_folder / "adapter_config.json").write_text("{} ")
    assert _track(run, store) == 0
    assert (
        "adapter/adapter_config.json" not in snapshot(store, "unfit")[folder.trial_id]["artifacts"]
    )


def test_what_is_there_already_is_not_sent_again(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracked_run(tmp_path / "again")
    assert _track(run, store) == 0
    tracker = MLflowTracker(store)
    tracker.open(sweep_identity(run))
    monkeypatch.setattr(tracker, "_client", None)  # nothing is asked of it
    mirror(run, tracker, is_driven=False)


@pytest.mark.parametrize("name", ["a%2Fb", "a?b=c", "%3F?#x y"])
def test_a_storage_of_any_name_holds_its_store_and_its_artifacts(name: str, tmp_path: Path) -> None:
    """MLflow's URIs decode %XX, and end a path at a question mark."""
    run = tracked_run(tmp_path / name / "odd", trials=1, events=1)
    assert _track(run, run.tracking_uri) == 0
    shown = snapshot(run.tracking_uri, "odd")
    assert sorted(len(each["artifacts"]) for each in shown.values()) == [2, 3, 6]
    assert [place.name for place in tmp_path.iterdir()] == [name]
    inside = {place.name for place in run.path.parent.iterdir()}
    assert inside == {"artifacts", "mlflow.db", "mlflow.db.lock", "odd"}
    kept = [*(run.path.parent / "artifacts" / "odd").rglob("report.md")]
    assert len(kept) == 1


def test_a_storage_that_was_moved_or_copied_keeps_its_artifacts_beside_it(tmp_path: Path) -> None:
    run = tracked_run(tmp_path / "old" / "here", trials=1, events=1)
    assert _track(run, run.tracking_uri) == 0
    before = snapshot(run.tracking_uri, "here")
    (tmp_path / "old").rename(tmp_path / "new")
    _forget_places()
    moved = RunFolder(tmp_path / "new" / "here")
    assert _track(moved, moved.tracking_uri) == 0
    assert snapshot(moved.tracking_uri, "here") == before
    assert not (tmp_path / "old").exists()

    shutil.copytree(tmp_path / "new", tmp_path / "copy")
    _forget_places()
    copied = RunFolder(tmp_path / "copy" / "here")
    copied.write_text(copied.report_file, "# Another report\n")
    assert _track(copied, copied.tracking_uri) == 0
    reports = {place.read_text() for place in (tmp_path / "new" / "artifacts").rglob("report.md")}
    assert reports == {"# Report\n"}
    assert "# Another" in next((tmp_path / "copy" / "artifacts").rglob("report.md")).read_text()


def test_artifacts_that_are_gone_are_sent_again(store: str, tmp_path: Path) -> None:
    run = tracked_run(tmp_path / "swept", trials=1, events=1)
    assert _track(run, store) == 0
    before = snapshot(store, "swept")
    database = sqlite_file(store)
    assert database is not None
    shutil.rmtree(database.parent / "artifacts" / "swept")
    assert _track(run, store) == 0
    assert snapshot(store, "swept") == before


def test_trials_whose_parent_was_deleted_are_nested_below_a_new_one(
    store: str, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    run = tracked_run(tmp_path / "orphans", trials=2, events=1)
    assert _track(run, store) == 0
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("orphans").experiment_id
    (parent,) = client.search_runs([experiment], "tags.role = 'sweep'")
    client.delete_run(parent.info.run_id)
    assert _track(run, store) == 0
    shown = snapshot(store, "orphans")  # which asserts that they have one parent
    assert {*shown} == {"sweep", *(folder.trial_id for folder in run.trials())}


def test_predictions_are_a_table_of_mlflow_once_however_often_they_are_sent(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # load_table asks no client
    run = tracked_run(tmp_path / "tables", trials=1)
    for _ in range(2):
        assert _track(run, store) == 0
        folder = next(run.trials())
        folder.append_log("one more line")  # so that it is sent again
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tables").experiment_id
    found = client.load_table(experiment, "predictions.json", extra_columns=["run_id"])
    by_run = found.groupby("run_id")
    assert len(by_run) == 2  # the trial and the baseline
    for _, table in by_run:
        assert list(table["id"]) == ["q0", "q1", "q2", "q3"]
        columns = ["id", "gold", "prediction", "correct", "em_acc", "em_acc_strict", "run_id"]
        assert list(table.columns) == columns


class TestErrors:
    def test_no_run_folder(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(tmp_path / "none")]) == 2
        assert "no such folder" in capsys.readouterr().err

    def test_a_server_that_is_away(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tracked_run(tmp_path / "away", trials=1)
        assert _track(run, f"http://me:s3cret@127.0.0.1:{free_port()}") == 1
        said = capsys.readouterr()
        assert "Start that server, or give another --tracking-uri" in said.err
        assert "s3cret" not in said.out + said.err

    def test_a_sweep_that_is_running(
        self, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tracked_run(tmp_path / "held", trials=1)
        with Lease(run):
            assert _track(run, store) == 2
        assert "is running this sweep" in capsys.readouterr().err

    def test_a_damaged_trial_is_named_and_the_others_are_there(
        self, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tracked_run(tmp_path / "torn", trials=2)
        torn, *_ = run.trials()
        torn.summary_file.write_text('{"state": "fin')
        assert _track(run, store) == 1
        assert f"{torn.path}: damaged; left out" in capsys.readouterr().err
        assert set(snapshot(store, "torn")) == {
            "sweep",
            *(folder.trial_id for folder in run.trials() if folder != torn),
        }

    def test_a_disk_that_is_full(
        self,
        store: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        run = tracked_run(tmp_path / "full", trials=1)
        monkeypatch.setattr(os, "pwrite", full)
        assert _track(run, store) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "No space left on device" in line and "The same command goes on" in line
        assert not run.lock_file.exists()

    def test_a_folder_that_does_not_say_which_sweep_it_is(
        self, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tracked_run(tmp_path / "nameless", trials=1)
        run.state_file.unlink()
        assert _track(run, store) == 2
        assert "does not name the sweep" in capsys.readouterr().err

    def test_a_link_is_not_followed(
        self, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = tracked_run(tmp_path / "linked", trials=1)
        (next(run.trials()).adapter_folder / "secret").symlink_to("/etc/hostname")
        assert _track(run, store) == 2
        assert "symbolic link" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "python -m orchestrator.track runs/quickstart" in said
    assert "exit codes" in said


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.mark.slow
def test_an_empty_server_is_filled_in_few_requests_and_again_in_fewer(
    server: str, store: str, tmp_path: Path
) -> None:
    run = tracked_run(tmp_path / "filled", trials=2, events=60)
    assert _track(run, store) == 0
    with WeatherServer(server) as before:
        count = partial(len, before.requests)
        assert _track(run, before.address) == 0
        first = count()
        assert _track(run, before.address) == 0
        again = count() - first
    assert snapshot(server, "filled") == snapshot(store, "filled")
    created = [line for line in before.requests if line.endswith("/runs/create")]
    assert len(created) == 4  # the sweep, two trials, a baseline
    assert first <= 12 * 4 + 10  # not one per point: there are 60 times 4 in each trial
    assert again <= 15
