"""Ownership of a trial: of two processes on one trial, only the later one writes."""

from __future__ import annotations

import multiprocessing
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tiny_trials import finish_host, make_spec
from trainables.spec.events import Event
from trainables.spec.trial_spec import Budget
from trainables.storage.errors import StorageError
from trainables.storage.ownership import OwnershipLostError, acquire_ownership
from trainables.storage.trial_folder import TrialFolder
from trainables.training import checkpoint
from trainables.training.checkpoint import Checkpoint
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure


@pytest.fixture
def place(tmp_path: Path, tiny_llama: Path) -> TrialFolder:
    spec = make_spec(tiny_llama, rank=3)
    folder = TrialFolder(tmp_path / "runs" / "tiny" / "trials" / spec.trial_id)
    folder.write_spec(spec, {})
    return folder


def contents(folder: TrialFolder) -> dict[str, bytes]:
    files = (file for file in folder.path.rglob("*") if file.is_file())
    return {str(file.relative_to(folder.path)): file.read_bytes() for file in files}


def a_checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step=step, state={"n": step}, tensors={"a": torch.full((2,), float(step))})


WRITES: dict[str, Callable[[TrialFolder], object]] = {
    "summary": lambda folder: folder.write_summary({"state": "finished"}),
    "progress": lambda folder: folder.write_progress({"step": 1}),
    "report score": lambda folder: folder.write_report_score({"metrics": {}}),
    "predictions": lambda folder: folder.write_predictions([{"id": "q"}]),
    "log": lambda folder: folder.append_log("a line"),
    "told": lambda folder: folder.append_reported_step(3),
    "adapter": lambda folder: folder.write_adapter(lambda beside: beside.mkdir()),
    "checkpoint": lambda folder: checkpoint.save(
        folder.checkpoints_folder, a_checkpoint(3), guard=folder.guard
    ),
    "end of checkpoints": lambda folder: folder.discard_checkpoints(),
    "another chance": lambda folder: folder.discard_result(),
}


@pytest.mark.parametrize("name", [*WRITES])
def test_who_was_taken_over_writes_nothing_and_leaves_nothing(
    place: TrialFolder, name: str
) -> None:
    older = acquire_ownership(place)
    newer = acquire_ownership(place)
    checkpoint.save(newer.checkpoints_folder, a_checkpoint(2), guard=newer.guard)
    newer.write_summary({"state": "failed"})
    before = contents(place)
    with pytest.raises(OwnershipLostError):
        WRITES[name](older)
    assert contents(place) == before
    assert not [*place.path.rglob("*.part")]


@pytest.mark.parametrize("name", [*WRITES])
def test_who_took_over_writes(place: TrialFolder, name: str) -> None:
    acquire_ownership(place)
    WRITES[name](acquire_ownership(place))


def test_a_node_that_does_not_share_the_storage_is_named_and_nothing_is_made_there(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "runs" / "space" / "trials" / "0123456789ab"
    with pytest.raises(StorageError, match=f"not there on {socket.gethostname()}.* not share"):
        acquire_ownership(TrialFolder(elsewhere))
    failure = HostProcess({}).start(str(elsewhere))
    assert isinstance(failure, Failure)
    assert failure.storage, "it would be every trial's fate: the sweep has to end"
    assert not [*tmp_path.iterdir()]


def test_what_was_half_written_goes_and_what_is_in_place_stays(place: TrialFolder) -> None:
    older = acquire_ownership(place)
    older.append_log("a line")
    checkpoint.save(older.checkpoints_folder, a_checkpoint(2), guard=older.guard)
    (older.checkpoints_folder / ".step-00000003.77.part").mkdir()
    (older.checkpoints_folder / ".step-00000003.77.part" / "state.json").write_text("{")
    (older.path / ".summary.json.77.part").write_text("{")
    acquire_ownership(place)
    assert not [*place.path.rglob("*.part")] and not [*place.path.rglob("*.gone")]
    found = checkpoint.load_latest(place.checkpoints_folder)
    assert found is not None and found.step == 2


def test_a_disk_that_can_not_be_read_is_no_other_owner(place: TrialFolder) -> None:
    """The trial is then not another's: it has failed, and says why."""
    ours = acquire_ownership(place)
    owner = place.path / "owner.json"
    owner.unlink()
    owner.mkdir()
    with pytest.raises(IsADirectoryError):
        ours.guard()
    owner.rmdir()
    with pytest.raises(OwnershipLostError):
        ours.guard()


@pytest.mark.parametrize("what", ["file", "checkpoint"])
def test_a_write_that_has_been_allowed_comes_before_the_other_begins_or_never(
    place: TrialFolder, what: str
) -> None:
    """The older one is stopped between its question and its move, the only gap there is."""
    older = acquire_ownership(place)

    def guard() -> None:
        older.guard()
        acquire_ownership(place)  # it begins here, and reads what is there

    slow = TrialFolder(place.path, guard)
    with pytest.raises(OSError, match=r"part|written|No such file"):
        if what == "file":
            slow.write_summary({"state": "finished"})
        else:
            checkpoint.save(slow.checkpoints_folder, a_checkpoint(3), guard=guard)
    assert place.summary() is None
    assert checkpoint.load_latest(place.checkpoints_folder) is None


@pytest.mark.slow
def test_a_host_that_was_taken_over_stops_and_the_trial_is_as_if_it_never_was(
    place: TrialFolder, tmp_path: Path
) -> None:
    alone = TrialFolder(tmp_path / "alone" / place.trial_id)
    shutil.copytree(place.path, alone.path)
    finish(HostProcess({}), alone)

    older, newer = HostProcess({}), HostProcess({})
    older.start(str(place.path))
    assert isinstance(older.next(), Event)
    newer.start(str(place.path))
    assert isinstance(newer.next(), Event)
    before = contents(place)
    ended = older.next()
    assert isinstance(ended, Failure) and "OwnershipLostError" in ended.reason
    older.close()
    assert contents(place) == before
    while (event := newer.next()).kind != "finished":  # type: ignore[union-attr]
        assert isinstance(event, Event)

    ours, theirs = place.summary(), alone.summary()
    assert ours is not None and theirs is not None
    assert ours["metrics"]["eval_loss"] == theirs["metrics"]["eval_loss"]
    assert [event["step"] for event in ours["history"]] == [
        event["step"] for event in theirs["history"]
    ]


def test_a_trial_that_another_host_has_finished_meanwhile_is_not_trained_again(
    place: TrialFolder,
) -> None:
    finish(HostProcess({}), place)
    before = contents(place)
    late = HostProcess({})
    history = late.start(str(place.path))
    event = late.next()
    assert isinstance(history, list) and isinstance(event, Event) and event.kind == "finished"
    summary = place.summary()
    assert summary is not None
    assert [item.to_json() for item in history] == summary["history"]
    assert late.loads == 0
    for name in ("summary.json", "predictions.jsonl"):
        assert contents(place)[name] == before[name]


def test_a_resumed_trial_tells_of_the_steps_that_it_told_of_before(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """A tracker has them already: others between them would be points of no trial."""
    budget = Budget(train_examples=32, eval_examples=3, rungs=(0.125, 1.0))
    spec = make_spec(tiny_llama, rank=3, budget=budget)
    place = TrialFolder(tmp_path / "trials" / spec.trial_id)
    place.write_spec(spec, {})
    killed = HostProcess({})
    killed.start(str(place.path))
    first = killed.next()
    assert isinstance(first, Event) and first.kind == "rung" and first.step == 1
    for step in (3, 6):  # its last checkpoint does not know of them
        acquire_ownership(place).append_reported_step(step)
    resumed = HostProcess({})
    assert resumed.start(str(place.path)) == [first]
    events = finish_host(resumed)
    assert [event.step for event in events if event.kind != "finished"] == [3, 6, 7, 8]
    summary = place.summary()
    assert summary is not None
    assert [event["step"] for event in summary["history"]] == [1, 3, 6, 7, 8]


def finish(host: HostProcess, place: TrialFolder) -> None:
    host.start(str(place.path))
    finish_host(host)


def _write_until_taken_over(folder: Path, ready: str, result: str) -> None:
    place = acquire_ownership(TrialFolder(folder))
    Path(ready).touch()
    step = 0
    try:
        while True:
            step += 1
            place.write_progress({"writer": "older", "step": step})
            checkpoint.save(place.checkpoints_folder, a_checkpoint(step), guard=place.guard)
    except (OwnershipLostError, OSError) as error:
        Path(result).write_text(type(error).__name__)


@pytest.mark.slow
def test_a_process_that_is_writing_all_the_time_is_stopped(
    place: TrialFolder, tmp_path: Path
) -> None:
    ready, result = tmp_path / "ready", tmp_path / "result"
    context = multiprocessing.get_context("spawn")
    older = context.Process(
        target=_write_until_taken_over, args=(place.path, str(ready), str(result))
    )
    older.start()
    while not ready.exists() or place.progress() is None:
        assert older.is_alive()
    newer = acquire_ownership(place)
    found = checkpoint.load_latest(place.checkpoints_folder)
    progress = place.progress()
    older.join(60)
    assert result.read_text() in ("OwnershipLostError", "StorageError", "FileNotFoundError")
    assert place.progress() == progress
    again = checkpoint.load_latest(place.checkpoints_folder)
    assert (again and again.step) == (found and found.step)
    newer.write_progress({"writer": "newer"})
