"""Specification of a host: it outlives its trials, whatever becomes of them."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_trials import BUDGET, make_spec
from trainables import host as host_module
from trainables.host import Failure, HostProcess, _heartbeat
from trainables.run_folder import TrialFolder
from trainables.spec import Event, TrialSpec


@pytest.fixture(scope="module")
def host() -> HostProcess:
    return HostProcess({"git_commit": "0123"})


def prepared(spec: TrialSpec, folder: Path) -> TrialFolder:
    place = TrialFolder(folder / spec.trial_id)
    place.write_spec(spec, {})
    return place


def finish(host: HostProcess) -> list[Event]:
    events: list[Event] = []
    while not events or events[-1].kind != "finished":
        event = host.next()
        assert isinstance(event, Event), event
        events.append(event)
    return events


def test_trials_of_one_base_load_it_once(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    before = host.loads
    for rank in (2, 4):
        place = prepared(make_spec(tiny_llama, rank=rank), tmp_path)
        assert host.start(str(place.path)) == []
        finish(host)
        summary = place.summary()
        assert summary is not None and summary["provenance"]["git_commit"] == "0123"
        assert "rung step" in place.log_file.read_text()
    assert host.loads - before <= 1


def test_a_trial_that_is_closed_goes_on_from_its_checkpoint(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, rank=3), tmp_path)
    assert host.start(str(place.path)) == []
    first = host.next()
    assert isinstance(first, Event)
    host.close()
    history = host.start(str(place.path))
    assert history == [first]
    rest = finish(host)
    assert rest[0].step > first.step


def test_without_a_trial_there_is_nothing_next(host: HostProcess) -> None:
    host.close()
    assert host.next() == Failure("no trial is running on this host")


def test_a_trial_that_can_not_start_is_a_failure_and_its_log_says_why(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, target_modules=["no_such_module"]), tmp_path)
    started = host.start(str(place.path))
    failure = started if isinstance(started, Failure) else host.next()
    assert isinstance(failure, Failure)
    assert "no_such_module" in failure.reason
    assert not failure.infeasible
    assert "Traceback" in place.log_file.read_text()
    healthy = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert host.start(str(healthy.path)) == []
    finish(host)


def test_a_model_that_changed_after_the_plan_is_not_trained(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    place = prepared(make_spec(model), tmp_path)
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    failure = host.start(str(place.path))
    assert isinstance(failure, Failure)
    assert failure.reason.startswith(f"InputError: model: the model folder {model} has changed")


def test_a_trial_that_broke_off_leaves_nothing_in_memory(
    host: HostProcess, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free_and_look() -> None:
        free_memory()
        left.append(model())

    left: list[object] = []
    free_memory = host_module._free_memory
    budget = replace(BUDGET, rungs=(1.0,))
    spec = make_spec(tiny_llama, budget=budget, learning_rate=1e30, optimizer="sgd", warmup=0.0)
    host.start(str(prepared(spec, tmp_path).path))
    model = weakref.ref(host._base.model)
    monkeypatch.setattr(host_module, "_free_memory", free_and_look)
    while not isinstance(host.next(), Failure):
        assert model() is not None
    assert left == [None]  # already when a GPU's memory is given back


def test_a_base_that_no_trial_wants_leaves_nothing_in_memory(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, method="untrained"), tmp_path)
    assert host.start(str(place.path)) == []
    finish(host)
    model = weakref.ref(host._base.model)
    other = prepared(make_spec(tiny_llama, method="untrained", quantization="nf4"), tmp_path)
    assert host.start(str(other.path)) == []
    assert model() is None
    host.close()


def test_a_heartbeat_keeps_what_the_last_event_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path / "trial")
    folder.write_progress({"kind": "rung", "step": 3, "state": "running", "updated": 1.0})
    _heartbeat(folder)()
    assert (folder.progress() or {})["updated"] == 1.0
    monkeypatch.setattr(host_module, "HEARTBEAT_SECONDS", 0.0)
    _heartbeat(folder)()
    progress = folder.progress() or {}
    assert (progress["kind"], progress["step"], progress["state"]) == ("rung", 3, "running")
    assert time.time() - progress["updated"] < 60


def test_a_folder_without_a_spec_is_a_failure(host: HostProcess, tmp_path: Path) -> None:
    assert isinstance(host.start(str(tmp_path / "absent")), Failure)


def test_memory_that_does_not_suffice_is_infeasible(host: HostProcess, tmp_path: Path) -> None:
    def out_of_memory() -> Generator[Event, None, None]:
        raise MemoryError("not enough")
        yield

    host._folder = TrialFolder(tmp_path / "trial")
    host._running = out_of_memory()
    assert host.next() == Failure("MemoryError: not enough", infeasible=True)


def test_a_trial_that_can_not_save_does_not_keep_the_next_from_starting(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    def disk_full() -> Generator[Event, None, None]:
        try:
            yield Event("progress", 1, 4, {})
        finally:
            raise OSError("no space left on device")

    host._folder = TrialFolder(tmp_path / "trial")
    host._running = disk_full()
    host.next()
    healthy = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert host.start(str(healthy.path)) == []
    assert "no space left" in (tmp_path / "trial" / "worker.log").read_text()
    host.close()


def test_scoring_a_trial_that_has_no_adapter_is_a_failure(
    host: HostProcess, tiny_llama: Path, tmp_path: Path
) -> None:
    place = prepared(make_spec(tiny_llama, rank=2), tmp_path)
    assert isinstance(host.score_report(str(place.path)), Failure)
    assert place.report_score() is None
