"""An MLflow server that is absent, killed, slow, silent, answers errors, or loses answers.

The driver is never blocked, and at the end one run per trial contains everything in its folder.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.execution.observers import TrackerWatcher
from orchestrator.track import main
from orchestrator.tracking.background import BackgroundTracker
from orchestrator.tracking.mlflow_tracker import MLflowTracker
from orchestrator.tracking.sync import end_sweep, mirror_later, sweep_identity
from tests.orchestrator.run_builder import label_of
from tests.orchestrator.tracking.mlflow_servers import (
    Weather,
    WeatherServer,
    free_port,
    mlflow_server,
)
from tests.orchestrator.tracking.tracked_runs import records, snapshot, tracked_run
from trainables.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow
HELD_SECONDS = 0.005
WORST_SECONDS = 0.5  # a busy machine's own doing; the server takes seconds
BAD: tuple[Weather, ...] = ("slow", "errors", "silent", "lost")


@pytest.fixture(scope="module", autouse=True)
def _impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that nothing happened to."""
    return f"sqlite:///{tmp_path_factory.mktemp('expected')}/mlflow.db"


class Driver:
    """One start of a sweep as its tracker sees it; notes how long each call held it."""

    def __init__(self, run: RunFolder, uri: str, *, close_seconds: float = 400) -> None:
        self.run = run
        self.held: list[float] = []  # seconds of each call
        self.tracker = BackgroundTracker(
            MLflowTracker(uri),
            warn=lambda text: None,
            close_seconds=close_seconds,
            pause_seconds=0.2,
        )
        self.tracker.open(sweep_identity(run))
        mirror_later(run, self.tracker, is_driven=True)

    def live(self, draw: random.Random, pause: float) -> Iterator[None]:
        """Runs all trials side by side; yields after each event."""
        watcher = TrackerWatcher(self.tracker, label_of)
        going = [(record, list(record.history)) for record in records(self.run)]
        for record, _ in going:
            self._timed(watcher.trial_started, record)
        while going:
            record, events = draw.choice(going)
            self._timed(watcher.trial_events, record, events[:1])
            del events[:1]
            if not events:
                going.remove((record, events))
                self._timed(watcher.trial_ended, record)
            time.sleep(pause)
            yield

    def end(self) -> bool:
        """Closes; whether all of it is there."""
        mirror_later(self.run, self.tracker, is_driven=False)
        end_sweep(self.run, self.tracker, state="finished")
        return not self.tracker.incomplete

    def _timed(self, call: Callable[..., None], *given: object) -> None:
        started = time.perf_counter()
        call(*given)
        self.held.append(time.perf_counter() - started)


def _assert_not_held(driver: Driver) -> None:
    assert statistics.median(driver.held) < HELD_SECONDS
    assert max(driver.held) < WORST_SECONDS


def _assert_whole(run: RunFolder, uri: str, expected: str) -> None:
    """As in a store that nothing happened to: each run, point, parameter, tag and artifact once."""
    assert main([str(run.path), "--tracking-uri", expected]) == 0
    shown, wanted = snapshot(uri, run.path.name), snapshot(expected, run.path.name)
    assert {trial["status"] for trial in shown.values()} <= {"FINISHED", "FAILED"}
    assert shown == wanted


@pytest.mark.parametrize("seed", [1, 2])
def test_bad_weather_of_all_kinds(server: str, expected: str, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    run = tracked_run(tmp_path / f"weather{seed}", trials=4, events=10)
    with WeatherServer(server, seconds=1.0) as before:
        driver = Driver(run, before.address)
        for _ in driver.live(draw, pause=0.2):
            if draw.random() < 0.25:
                before.weather = draw.choice([*BAD, "fine"])
        before.weather = "fine"
        driver.end()
        if driver.tracker.incomplete:  # a call that failed three times is left to the next start
            assert Driver(run, before.address).end()
        _assert_whole(run, server, expected)
    _assert_not_held(driver)


@pytest.mark.parametrize("weather", BAD)
def test_away_at_the_start_and_back_later(
    server: str, expected: str, tmp_path: Path, weather: Weather
) -> None:
    run = tracked_run(tmp_path / f"later-{weather}", trials=3, events=6)
    with WeatherServer(server, seconds=4.0) as before:
        before.weather = weather
        driver = Driver(run, before.address)
        for place, _ in enumerate(driver.live(random.Random(3), pause=0.3)):
            if place == 12:
                before.weather = "fine"
        driver.end()
        if driver.tracker.incomplete:
            assert Driver(run, before.address).end()
        _assert_whole(run, server, expected)
    _assert_not_held(driver)


def test_away_to_the_end_and_back_at_the_next_start(
    server: str, expected: str, tmp_path: Path
) -> None:
    run = tracked_run(tmp_path / "next", trials=3, events=6)
    with WeatherServer(server) as before:
        before.weather = "errors"
        driver = Driver(run, before.address, close_seconds=5)
        for _ in driver.live(random.Random(3), pause=0.0):
            pass
        assert not driver.end()
        before.weather = "fine"
        assert Driver(run, before.address).end()
        _assert_whole(run, server, expected)


def test_a_lost_answer_makes_no_second_run(server: str, expected: str, tmp_path: Path) -> None:
    run = tracked_run(tmp_path / "lost", trials=2, events=4)
    with WeatherServer(server) as before:
        before.weather = "lost"  # each "create run" is carried out, and seems to have failed
        driver = Driver(run, before.address)
        for _ in driver.live(random.Random(3), pause=0.5):
            pass
        before.weather = "fine"
        driver.end()
        if driver.tracker.incomplete:
            assert Driver(run, before.address).end()
        _assert_whole(run, server, expected)


def test_a_server_that_is_killed_in_the_middle_and_started_again(
    expected: str, tmp_path: Path
) -> None:
    run = tracked_run(tmp_path / "killed", trials=3, events=8)
    (tmp_path / "server").mkdir()
    port = free_port()
    with ExitStack() as second:
        with mlflow_server(tmp_path / "server", port=port) as uri:
            driver = Driver(run, uri)
            moments = driver.live(random.Random(3), pause=0.1)
            for _, _ in zip(range(10), moments, strict=False):
                pass
        for _ in moments:  # it is dead now
            pass
        second.enter_context(mlflow_server(tmp_path / "server", port=port))
        driver.end()
        if driver.tracker.incomplete:
            assert Driver(run, uri).end()
        _assert_whole(run, uri, expected)
    _assert_not_held(driver)
