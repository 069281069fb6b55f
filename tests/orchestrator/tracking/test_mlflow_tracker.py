"""The MLflow tracker: each trial once, each point once, and no sweep is blocked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.mlflow_store import tracking_command
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.sync import finish_trial, mirror, trial_name
from orchestrator.tracking.tracker import (
    RunEnd,
    RunStart,
    SweepEnd,
    SweepIdentity,
    TrackingError,
    redact,
    redact_address,
)
from tests.conftest import REPOSITORY
from tests.orchestrator.run_builder import add_baseline, add_trial, new_run, new_spec, trial_label
from trainables.spec.events import Event
from trainables.storage.run_folder import RunFolder

STARTED = 1_700_000_000.0  # seconds since the epoch


FRESH = """
import sys
from pathlib import Path
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.tracker import SweepEnd, SweepIdentity
Path("report.md").write_text("hello")
tracker = MLflowTracker(sys.argv[1])
tracker.open(SweepIdentity("s", "quick", 1e9))
tracker.close(SweepEnd("finished", artifacts=[Path("report.md")]))
"""


@pytest.fixture(scope="module")
def first_opening(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A storage folder whose store another process has made, and that process; takes seconds."""
    storage, work = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("work")
    command = [sys.executable, "-c", FRESH, f"sqlite:///{storage}/mlflow.db"]
    paths = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=True, env=paths)
    assert [file.name for file in work.iterdir()] == ["report.md"]
    return storage, done


@pytest.fixture(scope="module")
def uri(first_opening: tuple[Path, subprocess.CompletedProcess[str]]) -> str:
    """One sqlite store for all tests."""
    return f"sqlite:///{first_opening[0]}/mlflow.db"


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> SweepIdentity:
    return SweepIdentity(f"id-{request.node.name}", request.node.name, STARTED)


def _event(units: int, kind: Any = "progress", fraction: float = 0.0, **metrics: float) -> Event:
    return Event(kind, units // 8, units, metrics, fraction=fraction, seconds=units / 8)


def _opened(uri: str, sweep: SweepIdentity, *trials: str) -> MLflowTracker:
    tracker = MLflowTracker(uri)
    tracker.open(sweep)
    for trial_id in trials:
        tracker.start(RunStart(trial_id, trial_id, STARTED, params={"rank": 8}))
    return tracker


def _run_end(trial_id: str, state: str, **more: Any) -> RunEnd:
    start = RunStart(trial_id, trial_id, STARTED, params={"rank": 8})
    return RunEnd(start, state, **more)


def _finish(tracker: MLflowTracker, state: str, **metrics: float) -> None:
    tracker.finish(_run_end("t1", state, metrics=metrics))


def _all_runs(uri: str, name: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(name).experiment_id]))


def _runs(uri: str, sweep: SweepIdentity) -> dict[str, Any]:
    runs = _all_runs(uri, sweep.name)
    by_trial = {run.data.tags["trial_id"]: run for run in runs}
    assert len(by_trial) == len(runs), "a trial has two runs"
    return by_trial


def _points(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def test_nothing_of_a_summary_stands_in_place_of_what_a_run_is_found_by(
    uri: str, sweep: SweepIdentity
) -> None:
    tracker = _opened(uri, sweep, "t1")
    others = dict.fromkeys(("trial_id", "sweep_id", "state", "mlflow.parentRunId"), "another")
    tracker.finish(_run_end("t1", "finished", tags={**others, "device": "cpu"}))
    runs = _runs(uri, sweep)
    tags = runs["t1"].data.tags
    assert (tags["sweep_id"], tags["state"]) == (sweep.sweep_id, "finished")
    assert tags["mlflow.parentRunId"] == runs["sweep"].info.run_id
    assert tags["device"] == "cpu"


class TestPoints:
    def test_a_resumed_trial_repeats_steps_and_nothing_is_there_twice(
        self, uri: str, sweep: SweepIdentity
    ) -> None:
        first = _opened(uri, sweep, "t1")
        first.log("t1", [_event(units, train_loss=9.0 - units / 8) for units in (8, 16, 24)])
        resumed = _opened(uri, sweep, "t1")  # the first was killed; its checkpoint lies at 8
        resumed.log("t1", [_event(units, train_loss=9.5 - units / 8) for units in (16, 24, 32)])
        run = _runs(uri, sweep)["t1"]
        assert _points(uri, run, "train_loss") == [(8, 8.0), (16, 7.0), (24, 6.0), (32, 5.5)]

    def test_each_metric_is_followed_by_itself(self, uri: str, sweep: SweepIdentity) -> None:
        tracker = _opened(uri, sweep, "t1")
        tracker.log("t1", [_event(8, train_loss=1.0)])
        tracker.log("t1", [_event(8, "rung", 0.25, train_loss=2.0, em_acc=0.5)])
        run = _runs(uri, sweep)["t1"]
        assert _points(uri, run, "train_loss") == [(8, 1.0)]
        assert _points(uri, run, "em_acc") == [(8, 0.5)]

    def test_not_a_number_and_infinity_and_null_are_left_out(
        self, uri: str, sweep: SweepIdentity
    ) -> None:
        tracker = _opened(uri, sweep, "t1")
        nothing: Any = None
        odd = {"a": float("nan"), "b": float("inf"), "c": nothing, "d": 1.0}
        tracker.log("t1", [_event(8, **odd)])
        assert set(_runs(uri, sweep)["t1"].data.metrics) == {"d"}

    def test_many_points_go_in_few_requests(self, uri: str, sweep: SweepIdentity) -> None:
        tracker = _opened(uri, sweep, "t1")
        tracker.log("t1", [_event(units, a=1.0, b=2.0) for units in range(1500)])
        assert len(_points(uri, _runs(uri, sweep)["t1"], "b")) == 1500

    def test_time_is_the_start_plus_the_seconds_worked(
        self, uri: str, sweep: SweepIdentity
    ) -> None:
        tracker = _opened(uri, sweep, "t1")
        tracker.log("t1", [_event(80, train_loss=1.0)])
        _finish(tracker, "finished", em_acc=0.5)
        run = _runs(uri, sweep)["t1"]
        assert run.info.end_time - run.info.start_time == 10_000

    def test_the_last_rung_waits_for_the_final_values(self, uri: str, sweep: SweepIdentity) -> None:
        tracker = _opened(uri, sweep, "t1")
        tracker.log("t1", [_event(8, "rung", 0.5, em_acc=0.1), _event(16, "rung", 1.0, em_acc=0.2)])
        _finish(tracker, "interrupted", em_acc=0.2)
        resumed = _opened(uri, sweep, "t1")
        resumed.log("t1", [_event(16, "rung", 1.0, em_acc=0.2, eval_loss=3.0)])
        _finish(resumed, "finished", em_acc=0.3)
        run = _runs(uri, sweep)["t1"]
        assert _points(uri, run, "em_acc") == [(8, 0.1), (16, 0.3)]
        assert _points(uri, run, "eval_loss") == [(16, 3.0)]

    def test_a_stopped_trials_summary_adds_no_second_measurement(
        self, uri: str, sweep: SweepIdentity
    ) -> None:
        tracker = _opened(uri, sweep, "t1")
        tracker.log("t1", [_event(8, "rung", 0.5, em_acc=0.1), _event(16, train_loss=2.0)])
        _finish(tracker, "stopped", em_acc=0.1)
        assert _points(uri, _runs(uri, sweep)["t1"], "em_acc") == [(8, 0.1)]


class TestRuns:
    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("finished", "FINISHED"),
            ("stopped", "FINISHED"),
            ("failed", "FAILED"),
            ("infeasible", "FAILED"),
            ("interrupted", "KILLED"),
        ],
    )
    def test_states(self, uri: str, sweep: SweepIdentity, state: str, status: str) -> None:
        tracker = _opened(uri, sweep, "t1")
        assert _runs(uri, sweep)["t1"].info.status == "RUNNING"
        _finish(tracker, state)
        run = _runs(uri, sweep)["t1"]
        assert (run.info.status, run.data.tags["state"]) == (status, state)
        _opened(uri, sweep, "t1")
        run = _runs(uri, sweep)["t1"]
        assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")

    def test_parameters_are_written_once_and_never_changed(
        self, uri: str, sweep: SweepIdentity
    ) -> None:
        for rank in (8, 16):
            tracker = _opened(uri, sweep)
            params = {"rank": rank, "target_modules": ["k", "q"], "double_quantization": True}
            tracker.start(RunStart("t1", "n", STARTED, params=params))
        assert _runs(uri, sweep)["t1"].data.params == {
            "rank": "8",
            "target_modules": '["k", "q"]',
            "double_quantization": "true",
        }

    def test_sweeps_of_one_name_are_apart(self, uri: str, sweep: SweepIdentity) -> None:
        for sweep_id in ("one", "two"):
            _opened(uri, SweepIdentity(sweep_id, sweep.name, STARTED), "t1")
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(sweep.name)
        runs = client.search_runs([experiment.experiment_id], "tags.trial_id = 't1'")
        assert {run.data.tags["sweep_id"] for run in runs} == {"one", "two"}

    def test_a_longer_sweep_shows_its_new_best(self, uri: str, sweep: SweepIdentity) -> None:
        for trials, best in ((("t1",), 0.3), (("t1", "t2"), 0.4), (("t1", "t2"), 0.4)):
            _opened(uri, sweep, *trials).close(SweepEnd("finished", metrics={"best_em_acc": best}))
        assert _points(uri, _runs(uri, sweep)["sweep"], "best_em_acc") == [(1, 0.3), (2, 0.4)]

    def test_a_second_run_of_a_trial_goes(self, uri: str, sweep: SweepIdentity) -> None:
        """A server that is slow to create a run may do so after the answer was given up."""
        from mlflow import MlflowClient

        _finish(_opened(uri, sweep, "t1"), "finished", em_acc=0.5)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(sweep.name).experiment_id
        tags = {"sweep_id": sweep.sweep_id, "trial_id": "t1"}
        client.create_run(experiment, start_time=1, tags=tags)
        tracker = _opened(uri, sweep)
        assert _runs(uri, sweep)["t1"].data.metrics == {"em_acc": 0.5}
        client.create_run(experiment, start_time=1, tags=tags)
        tracker.close(SweepEnd("finished"))
        assert _runs(uri, sweep)["t1"].data.metrics == {"em_acc": 0.5}

    def test_a_deleted_experiment_comes_back(self, uri: str, sweep: SweepIdentity) -> None:
        from mlflow import MlflowClient

        _opened(uri, sweep, "t1")
        client = MlflowClient(uri)
        client.delete_experiment(client.get_experiment_by_name(sweep.name).experiment_id)
        _opened(uri, sweep, "t1")
        assert set(_runs(uri, sweep)) == {"sweep", "t1"}


class TestMirror:
    def test_rebuilds_every_trial_from_its_directory_as_often_as_one_likes(
        self, uri: str, sweep: SweepIdentity, tmp_path: Path
    ) -> None:
        run = new_run(tmp_path / "quick")
        best = add_trial(run, right=[1, 1, 0, 0], rungs={0.25: 0.2, 1.0: 0.4}, report_right=[1, 0])
        stopped = add_trial(run, state="stopped", rungs={0.25: 0.1}, rank=16)
        failed = add_trial(run, state="failed", reason="loss is nan", rank=32)
        base = add_baseline(run, [0, 0, 0, 1])
        for _ in range(2):
            mirror(run, _opened(uri, sweep), is_driven=False)
        runs = _runs(uri, sweep)
        ids = [folder.trial_id for folder in (best, stopped, failed, base)]
        assert set(runs) == {"sweep", *ids}
        assert _points(uri, runs[ids[0]], "em_acc")[-1][1] == 0.5
        assert runs[ids[0]].data.metrics["report_em_acc"] == 0.5
        assert runs[ids[0]].data.tags["git_commit"] == "0123abc"
        asked = [(runs[key].data.tags["context"], runs[key].data.tags["evidence"]) for key in ids]
        assert asked == [("evidence", "gold")] * 4
        assert runs[ids[0]].data.params["rank"] == "8"
        assert runs[ids[2]].data.tags["reason"] == "loss is nan"
        assert [runs[key].data.tags["role"] for key in ids[1:]] == ["trial", "trial", "baseline"]
        assert [runs[key].info.status for key in ids] == ["FINISHED"] * 2 + ["FAILED", "FINISHED"]

    def test_a_trial_without_a_summary_is_there_and_goes_on(
        self, uri: str, sweep: SweepIdentity, tmp_path: Path
    ) -> None:
        run = new_run(tmp_path / "quick")
        folder = add_trial(run)
        folder.discard_result()
        mirror(run, _opened(uri, sweep), is_driven=False)
        assert _runs(uri, sweep)[folder.trial_id].info.status == "KILLED"
        mirror(run, _opened(uri, sweep), is_driven=True)
        assert _runs(uri, sweep)[folder.trial_id].info.status == "RUNNING"

    def test_a_report_score_may_come_later(
        self, uri: str, sweep: SweepIdentity, tmp_path: Path
    ) -> None:
        run = new_run(tmp_path / "quick")
        folder = add_trial(run, right=[1, 0], rungs={1.0: 0.5})
        tracker = _opened(uri, sweep)
        mirror(run, tracker, is_driven=False)
        score = {"split": "report", "metrics": {"em_acc": 0.25}, "count": 4}
        folder.write_report_score(score)
        finish_trial(tracker, folder, label="small")
        metrics = _runs(uri, sweep)[folder.trial_id].data.metrics
        assert (metrics["report_em_acc"], metrics["report_questions"]) == (0.25, 4)

    def test_a_torn_directory_is_left_out(
        self, uri: str, sweep: SweepIdentity, tmp_path: Path
    ) -> None:
        run = new_run(tmp_path / "quick")
        whole, torn = add_trial(run, rank=4), add_trial(run, rank=16)
        torn.summary_file.write_text('{"state": "fin')
        mirror(run, _opened(uri, sweep), is_driven=False)
        assert set(_runs(uri, sweep)) == {"sweep", whole.trial_id}

    def test_a_person_can_read_the_runs_name(self) -> None:
        spec = new_spec(quantization="nf4", rank=8, learning_rate=0.0013, batch_size=8)
        name = trial_name(trial_label(spec.knobs), spec.trial_id)
        assert name == f"small nf4 r8 a16 lr1.3e-03 b8x1 · {spec.trial_id[:6]}"


class _Recorder:
    """A store that is down while `gate` is shut or `down` is set; notes what reaches it."""

    def __init__(self, *, ready: bool = False, down: bool = False) -> None:
        self.gate = threading.Event()
        if ready:
            self.gate.set()
        self.down = down
        self.calls: list[tuple[str, ...]] = []
        self.logged: list[tuple[str, list[int]]] = []

    def open(self, sweep: SweepIdentity) -> None:
        self.gate.wait(10)
        self._reached("open", sweep.name)

    def start(self, start: RunStart) -> None:
        self._reached("start", start.trial_id)

    def log(self, trial_id: str, events: Sequence[Event]) -> None:
        self._reached("log", trial_id)
        self.logged.append((trial_id, [event.units for event in events]))

    def finish(self, end: RunEnd) -> None:
        self._reached("finish", end.trial_id)

    def close(self, end: SweepEnd) -> None:
        self._reached("close", end.state)

    def _reached(self, *call: str) -> None:
        if self.down or "never" in call:
            raise TrackingError("MLflow at X can't be used: gone")
        self.calls.append(call)


def _until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "nothing happened in 10 s"
        time.sleep(0.01)


class TestBackground:
    def test_nothing_waits_order_is_kept_and_logs_are_merged(self, sweep: SweepIdentity) -> None:
        recorder = _Recorder()
        tracker = BackgroundTracker(recorder, warn=pytest.fail)
        tracker.open(sweep)
        for trial_id in ("a", "b"):
            tracker.start(RunStart(trial_id, trial_id, STARTED))
        for units in (8, 16):
            tracker.log("a", [_event(units)])
            tracker.log("b", [_event(units)])
        tracker.finish(_run_end("a", "finished"))
        tracker.log("b", [_event(24)])
        assert recorder.logged == []
        recorder.gate.set()
        tracker.close(SweepEnd("finished"))
        assert recorder.logged == [("a", [8, 16]), ("b", [8, 16]), ("b", [24])]
        assert recorder.calls[-3:] == [("finish", "a"), ("log", "b"), ("close", "finished")]
        assert not tracker.incomplete

    @pytest.mark.parametrize("begins", [True, False])
    def test_a_delayed_one_calls_nothing_before_it_begins_or_is_closed(
        self, sweep: SweepIdentity, begins: bool
    ) -> None:
        recorder = _Recorder(ready=True)
        tracker = BackgroundTracker(recorder, warn=pytest.fail, delayed=True)
        tracker.open(sweep)
        tracker.start(RunStart("a", "a", STARTED))
        time.sleep(0.05)
        assert recorder.calls == []
        if begins:
            tracker.begin()
            tracker.begin()
            _until(lambda: ("start", "a") in recorder.calls)
        tracker.close(SweepEnd("finished"))
        assert recorder.calls[-2:] == [("start", "a"), ("close", "finished")]
        assert not tracker.incomplete

    def test_an_error_is_one_warning_and_the_tracker_is_whole_once_it_answers_again(
        self, sweep: SweepIdentity
    ) -> None:
        said: list[str] = []
        recorder = _Recorder(ready=True)
        tracker = BackgroundTracker(recorder, warn=said.append, pause_seconds=0.01)
        tracker.open(sweep)
        tracker.start(RunStart("a", "a", STARTED))
        tracker.start(RunStart("b", "b", STARTED))
        _until(lambda: ("start", "b") in recorder.calls)
        recorder.down = True
        tracker.log("a", [_event(8)])
        _until(lambda: said)
        assert "can't be used: gone. The sweep goes on" in said[0]
        assert tracker.incomplete
        tracker.finish(_run_end("a", "finished"))
        tracker.start(RunStart("c", "c", STARTED))
        tracker.log("c", [_event(8)])
        time.sleep(0.1)
        recorder.calls.clear()
        recorder.down = False
        _until(lambda: not tracker.incomplete)
        again = [("open", sweep.name), ("start", "a"), ("start", "b")]
        assert recorder.calls == [*again, ("finish", "a"), ("start", "c")]
        tracker.close(SweepEnd("finished"))
        assert len(said) == 2
        assert "works again" in said[1]

    def test_it_is_tried_again_in_closing_at_the_latest(self, sweep: SweepIdentity) -> None:
        said: list[str] = []
        recorder = _Recorder(ready=True, down=True)
        tracker = BackgroundTracker(recorder, warn=said.append, pause_seconds=3600)
        tracker.open(sweep)
        tracker.start(RunStart("a", "a", STARTED))
        tracker.finish(_run_end("a", "finished"))
        _until(lambda: said)
        recorder.down = False
        tracker.close(SweepEnd("finished"))
        assert not tracker.incomplete
        ends = [("start", "a"), ("finish", "a"), ("close", "finished")]
        assert recorder.calls[-3:] == ends

    def test_one_that_is_still_away_in_closing_is_left_to_the_next_start(
        self, sweep: SweepIdentity
    ) -> None:
        said: list[str] = []
        recorder = _Recorder(ready=True, down=True)
        tracker = BackgroundTracker(recorder, warn=said.append, pause_seconds=0.01)
        tracker.open(sweep)
        tracker.log("a", [_event(8)])
        before = time.monotonic()
        tracker.close(SweepEnd("finished"))
        assert time.monotonic() - before < 5
        assert tracker.incomplete
        assert len(said) == 1
        assert recorder.calls == []

    def test_a_call_that_can_never_be_made_does_not_hold_up_the_others(
        self, sweep: SweepIdentity
    ) -> None:
        said: list[str] = []
        recorder = _Recorder(ready=True)
        tracker = BackgroundTracker(recorder, warn=said.append, pause_seconds=0.01)
        tracker.open(sweep)
        tracker.start(RunStart("never", "never", STARTED))
        tracker.start(RunStart("a", "a", STARTED))
        _until(lambda: ("start", "a") in recorder.calls)
        tracker.close(SweepEnd("finished"))
        assert recorder.calls[-1] == ("close", "finished")
        assert tracker.incomplete
        assert len(said) == 1

    def test_closing_waits_no_longer_than_it_may(self, sweep: SweepIdentity) -> None:
        warnings: list[str] = []
        recorder = _Recorder()
        tracker = BackgroundTracker(recorder, warn=warnings.append, close_seconds=0.2)
        tracker.open(sweep)
        before = time.monotonic()
        tracker.close(SweepEnd("finished"))
        assert time.monotonic() - before < 2
        assert tracker.incomplete
        assert "not done after 0.2 s" in warnings[0]
        recorder.gate.set()

    def test_a_store_that_comes_back_holds_every_point_of_the_sweep(
        self, tmp_path: Path, sweep: SweepIdentity
    ) -> None:
        said: list[str] = []
        run = new_run(tmp_path / "quick")
        best = add_trial(run, right=[1, 0], rungs={0.25: 0.2, 1.0: 0.5})
        (tmp_path / "later").write_text("a file where the store's folder is to be")
        uri = f"sqlite:///{tmp_path}/later/mlflow.db"
        tracker = BackgroundTracker(MLflowTracker(uri), warn=said.append, close_seconds=120)
        tracker.open(sweep)
        mirror(run, tracker, is_driven=False)
        _until(lambda: said)
        (tmp_path / "later").unlink()
        tracker.close(SweepEnd("finished", metrics={"best_em_acc": 0.5}))
        assert not tracker.incomplete
        assert len(said) == 2
        runs = _runs(uri, sweep)
        assert [value for _, value in _points(uri, runs[best.trial_id], "em_acc")] == [0.2, 0.5]
        assert runs["sweep"].info.status == "FINISHED"

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_fault_of_the_program_is_told_too(self) -> None:
        warnings: list[str] = []
        tracker = BackgroundTracker(MLflowTracker("sqlite:///unused.db"), warn=warnings.append)
        tracker.start(RunStart("never opened", "", STARTED))
        tracker.close(SweepEnd("finished"))
        assert tracker.incomplete
        assert "fault of the program" in warnings[0]


class TestUnusable:
    @pytest.mark.parametrize(
        "make_uri",
        [
            lambda folder: "http://user:s3cret@127.0.0.1:1",
            lambda folder: f"sqlite:///{folder}/text/mlflow.db",
            lambda folder: f"sqlite:///{folder}/text",
            lambda folder: f"file://{folder}/mlruns",
            lambda folder: "unknown://user:s3cret@host",
        ],
        ids=["no server", "no folder", "no database", "file store", "unknown scheme"],
    )
    def test_is_an_error_without_a_password_within_seconds(
        self, make_uri: Callable[[Path], str], tmp_path: Path, sweep: SweepIdentity
    ) -> None:
        (tmp_path / "text").write_text("This is no database, and it is long enough to tell." * 40)
        before = time.monotonic()
        with pytest.raises(TrackingError, match=r"can't be used: .") as caught:
            MLflowTracker(make_uri(tmp_path)).open(sweep)
        assert time.monotonic() - before < 20
        assert "s3cret" not in f"{caught.value}{caught.value.__cause__}"

    @pytest.mark.slow
    def test_a_server_that_never_answers_is_known_within_about_ten_seconds(
        self, sweep: SweepIdentity
    ) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            before = time.monotonic()
            with pytest.raises(TrackingError, match="timed out"):
                MLflowTracker(f"http://127.0.0.1:{silent.getsockname()[1]}").open(sweep)
            assert time.monotonic() - before < 20  # and the import of mlflow on busy cores


def test_a_fresh_store_is_silent_and_everything_lies_beside_it(
    first_opening: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    storage, process = first_opening
    assert (process.stdout, process.stderr) == ("", "")
    assert len(list((storage / "artifacts" / "quick").rglob("report.md"))) == 1


def test_the_command_that_shows_the_store(tmp_path: Path) -> None:
    uri = RunFolder(tmp_path / "my runs" / "quick").tracking_uri
    assert uri == f"sqlite:///{tmp_path}/my runs/mlflow.db"
    assert tracking_command(uri).endswith(f"mlflow ui --backend-store-uri '{uri}'")
    assert tracking_command("http://me:s3cret@host:5000") == "open http://***@host:5000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host:5000/a", "http://host:5000/a"),
        ("at https://me:s3cret@host/a: gone", "at https://***@host/a: gone"),
        ("http://me:p@ss/word@host", "http://***@host"),
        (
            "postgresql://host/db?user=me&password=s3cret",
            "postgresql://host/db?user=me&password=***",
        ),
        ("http://me:two words@host/a", "http://***@host/a"),
        ("s3://b?api_key=k1&x=1&ApiKey=k2", "s3://b?api_key=***&x=1&ApiKey=***"),
        (
            "?access_key=k&sig=s&signature=t&credential=c",
            "?access_key=***&sig=***&signature=***&credential=***",
        ),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.train=/d/token=1/x.json", "data.train=/d/token=1/x.json"),
        ("s3://bucket/token=1/a@b", "s3://bucket/token=1/a@b"),
        ("s3://bucket/run@2:3", "s3://bucket/run@2:3"),
        ("https://me:s3cret@host/a?token=t", "https://***@host/a?token=***"),
        ("http://me:p@ss/word@host", "http://***@host"),
        ("http://me:p?ss@host/a", "http://***@host/a"),
        ("http://me:123@host/a", "http://***@host/a"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("http://ghp_token@host/a", "http://***@host/a"),
        ("x=postgresql://h/db?user=me&password=s", "x=postgresql://h/db?user=me&password=***"),
    ],
)
def test_redact_address(text: str, expected: str) -> None:
    assert redact_address(text) == expected


TOGETHER = """
import sys
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.tracker import SweepIdentity
import mlflow.store.tracking.sqlalchemy_store
print("ready", flush=True)
sys.stdin.readline()
MLflowTracker(sys.argv[1]).open(SweepIdentity(sys.argv[2], "quick", 1e9))
"""


@pytest.mark.slow
def test_two_sweeps_that_start_together_make_one_fresh_store(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/runs/mlflow.db"
    with ExitStack() as processes:
        sweeps = [processes.enter_context(_opening(uri, name)) for name in ("one", "two")]
        for process in sweeps:
            processes.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in sweeps:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=120)[1] for process in sweeps] == ["", ""]
    assert {run.data.tags["sweep_id"] for run in _all_runs(uri, "quick")} == {"one", "two"}


DIES_IN_A_STEP = """
import os, sys
from sqlalchemy import Engine, event
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.tracker import SweepIdentity

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    if "index_metrics_run_uuid_key_step" in statement:
        os._exit(9)

MLflowTracker(sys.argv[1]).open(SweepIdentity("killed", "quick", 1e9))
"""


@pytest.mark.slow
def test_a_store_whose_creation_was_cut_off_is_created_anew(tmp_path: Path) -> None:
    database = tmp_path / "runs" / "mlflow.db"
    uri = f"sqlite:///{database}"
    killed = subprocess.run(
        [sys.executable, "-c", DIES_IN_A_STEP, uri], cwd=REPOSITORY, check=False
    )
    assert killed.returncode == 9
    MLflowTracker(uri).open(SweepIdentity("next", "quick", 1e9))
    assert {run.data.tags["sweep_id"] for run in _all_runs(uri, "quick")} == {"next"}
    assert not list(database.parent.glob("*.part*"))


def _opening(uri: str, sweep_id: str) -> subprocess.Popen[str]:
    """A process that opens the store for a sweep once it is sent a line."""
    return subprocess.Popen(
        [sys.executable, "-c", TOGETHER, uri, sweep_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
