"""Working copies: what is written here is uploaded to the bucket, and only what counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainables.errors import InputError
from trainables.spec.knobs import canonical
from trainables.spec.trial_spec import Budget, TrialSpec
from trainables.storage import mirror
from trainables.storage.bucket_store import BucketStore
from trainables.storage.errors import StorageError
from trainables.storage.mirror import Mirror
from trainables.storage.object_store import Listed, ObjectStore, Stored, Tag, Timeouts
from trainables.storage.ownership import OwnershipLostError, acquire_ownership
from trainables.storage.run_folder import RunFolder, trial_at
from trainables.storage.trial_folder import TrialFolder
from trainables.storage.working_copy import working_copy
from trainables.training import checkpoint
from trainables.training.checkpoint import Checkpoint

ROWS = [{"id": "q1", "answer": "12"}]


class Watched:
    """A store that counts what is asked of it, and fails where it is told to."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.asked: list[tuple[str, str]] = []
        self.fails_at = ""

    @property
    def place(self) -> str:
        return self._store.place

    def put(self, key: str, content: bytes | Path, *, written_ns: int = 0) -> Tag:
        self._ask("put", key)
        return self._store.put(key, content, written_ns=written_ns)

    def put_if_absent(self, key: str, content: bytes) -> Tag | None:
        self._ask("create", key)
        return self._store.put_if_absent(key, content)

    def replace(self, key: str, content: bytes, *, tag: Tag) -> Tag | None:
        self._ask("replace", key)
        return self._store.replace(key, content, tag=tag)

    def get(self, key: str) -> Stored | None:
        self._ask("get", key)
        return self._store.get(key)

    def download(self, key: str, file: Path) -> bool:
        self._ask("download", key)
        return self._store.download(key, file)

    def list(self, prefix: str = "") -> Iterator[Listed]:
        self._ask("list", prefix)
        return self._store.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        wanted = [*keys]
        self._ask("delete", ",".join(wanted))
        self._store.delete(wanted)

    def with_timeouts(self, patience: Timeouts) -> ObjectStore:
        return self

    def of(self, *kinds: str) -> Sequence[str]:
        return [key for kind, key in self.asked if kind in kinds]

    def _ask(self, kind: str, key: str) -> None:
        if self.fails_at and self.fails_at in key:
            raise StorageError(f"{key}: can't be reached")
        self.asked.append((kind, key))


@pytest.fixture
def store() -> Watched:
    from obstore.store import MemoryStore

    return Watched(BucketStore("memory://sweeps/one", MemoryStore()))


Machines = Callable[[str], RunFolder]


@pytest.fixture
def machine(store: Watched, tmp_path: Path) -> Machines:
    """The run as the machine of a name has it: a disk of its own, one bucket."""

    def on(name: str) -> RunFolder:
        folder = tmp_path / name / "one"
        return RunFolder(folder, mirror=Mirror(folder, store))

    return on


def a_trial(run: RunFolder, rank: int = 3) -> TrialFolder:
    spec = TrialSpec(
        role="trial",
        knobs=canonical({"model": "a-model", "rank": rank}),
        model_digest="0123",
        task="finqa",
        task_identity={"version": "1"},
        task_options={},
        budget=Budget(16, 4),
    )
    folder = run.trial(spec.trial_id)
    folder.write_spec(spec, {"rank": rank})
    return folder


def saved(folder: TrialFolder, step: int) -> Path:
    made = Checkpoint(step=step, state={"n": step}, tensors={"a": torch.full((2,), float(step))})
    place = folder.checkpoints_folder
    return checkpoint.save(place, made, guard=folder.guard, mirror=folder.mirror)


def adapter(text: str = "weights") -> Callable[[Path], None]:
    def save(beside: Path) -> None:
        beside.mkdir()
        (beside / "adapter_model.safetensors").write_text(text)

    return save


def test_what_one_machine_writes_another_reads(machine: Machines) -> None:
    here, there = machine("here"), machine("there")
    here.write_state({"sweep_id": "abc"})
    here.write_text(here.report_file, "# Report")
    trial = a_trial(here)
    trial.write_estimate({"fits": True})
    trial.write_predictions(ROWS)
    trial.write_predictions(ROWS, "report")
    trial.write_summary({"state": "finished"})
    trial.write_report_score({"metrics": {"em_acc": 1.0}, "count": 1})
    there.pull()
    (read,) = there.trials()
    assert (there.state() or {})["sweep_id"] == "abc"
    assert there.report_file.read_text() == "# Report"
    assert read.spec_and_suggestion()[1] == {"rank": 3}
    assert read.estimate() == {"fits": True}
    assert read.done
    assert read.is_sound()
    assert (read.report_score() or {})["count"] == 1


def test_trials_keep_the_order_in_which_they_were_planned(machine: Machines) -> None:
    here = machine("here")
    made = [a_trial(here, rank).trial_id for rank in (9, 2, 7, 4)]
    there = machine("there")
    there.pull()
    assert [folder.trial_id for folder in there.trials()] == made


def test_nothing_is_fetched_twice_and_only_what_differs(machine: Machines, store: Watched) -> None:
    here, there = machine("here"), machine("there")
    trial = a_trial(here)
    trial.write_predictions(ROWS)
    there.pull()
    assert len(store.of("download")) == 2
    store.asked.clear()
    there.pull()
    here.pull()  # what this machine has published it has
    assert store.of("download") == []
    trial.write_predictions([*ROWS, {"id": "q2"}])
    there.pull()
    assert store.of("download") == [f"trials/{trial.trial_id}/predictions.jsonl"]


def test_what_was_never_published_does_not_count(machine: Machines, store: Watched) -> None:
    """Killed between the write here and the one there."""
    here = machine("here")
    trial = a_trial(here)
    trial.write_predictions(ROWS)
    store.fails_at = "/predictions.jsonl"
    with pytest.raises(StorageError):
        trial.write_predictions([{"id": "another"}])
    store.fails_at = "/summary.json"
    with pytest.raises(StorageError):
        trial.write_summary({"state": "finished"})
    store.fails_at = ""
    here.pull(prune=True)
    assert not trial.done
    assert "q1" in trial.predictions_file().read_text()


def test_a_checkpoint_counts_once_its_manifest_is_there(machine: Machines, store: Watched) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    saved(here, 1)
    assert store.of("put")[-2:] == [
        f"trials/{here.trial_id}/checkpoints/step-00000001/{name}"
        for name in ("tensors.safetensors", "state.json")
    ]
    store.fails_at = "step-00000002/state.json"
    with pytest.raises(StorageError):
        saved(here, 2)
    store.fails_at = ""
    there = acquire_ownership(machine("there").trial(here.trial_id))
    latest = checkpoint.load_latest(there.checkpoints_folder)
    assert latest is not None
    assert latest.step == 1


def test_old_checkpoints_go_there_too(machine: Machines, store: Watched) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    for step in (1, 2, 3):
        saved(here, step)
    kept = {item.key.split("/")[3] for item in store.list(f"trials/{here.trial_id}/checkpoints/")}
    assert kept == {"step-00000002", "step-00000003"}
    here.discard_checkpoints()
    assert list(store.list(f"trials/{here.trial_id}/checkpoints/")) == []


WRITES: dict[str, Callable[[TrialFolder], object]] = {
    "summary": lambda folder: folder.write_summary({"state": "finished"}),
    "predictions": lambda folder: folder.write_predictions([{"id": "theirs"}]),
    "report score": lambda folder: folder.write_report_score({"metrics": {}}),
    "adapter": lambda folder: folder.write_adapter(adapter("theirs")),
    "checkpoint": lambda folder: saved(folder, 9),
    "end of checkpoints": lambda folder: folder.discard_checkpoints(),
    "another chance": lambda folder: folder.discard_result(),
    "signs of life": lambda folder: folder.publish_signs(),
}


@pytest.mark.parametrize("name", [*WRITES])
def test_a_host_that_was_taken_over_from_another_machine_changes_nothing_there(
    machine: Machines, store: Watched, name: str
) -> None:
    older = acquire_ownership(a_trial(machine("cut off")))
    older.write_predictions(ROWS)
    saved(older, 1)
    older.append_log("waits to be published")
    acquire_ownership(machine("next").trial(older.trial_id))
    before = contents(store)
    with pytest.raises(OwnershipLostError):
        WRITES[name](older)
    assert contents(store) == before


def test_it_is_asked_again_before_the_manifest_of_a_checkpoint(
    machine: Machines, store: Watched
) -> None:
    """Its tensors may take minutes."""
    older = acquire_ownership(a_trial(machine("cut off")))
    next_machine = machine("next").trial(older.trial_id)
    assert older.mirror is not None
    fence = older.mirror.fence
    asked: list[int] = []

    def fence_lost_on_the_way() -> None:
        fence()
        asked.append(1)
        if len(asked) == 1:
            acquire_ownership(next_machine)

    slow = replace(older, mirror=replace(older.mirror, fence=fence_lost_on_the_way))
    with pytest.raises(OwnershipLostError):
        saved(slow, 1)
    assert not [key for key in contents(store) if key.endswith("state.json")]


def test_a_host_on_another_machine_begins_with_what_the_last_one_published(
    machine: Machines,
) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    here.append_reported_step(1)
    saved(here, 1)
    here.append_reported_step(2)
    here.publish_signs()
    there = acquire_ownership(machine("there").trial(here.trial_id))
    assert there.spec().trial_id == here.trial_id
    assert there.reported_steps(after=1) == {2}
    assert checkpoint.load_latest_state(there.checkpoints_folder) == {"n": 1}


def test_a_host_on_the_same_machine_fetches_nothing(machine: Machines, store: Watched) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    saved(here, 1)
    here.append_reported_step(2)  # not published yet
    store.asked.clear()
    again = acquire_ownership(machine("here").trial(here.trial_id))
    assert store.of("download") == []
    assert again.reported_steps(after=1) == {2}


def test_the_driver_fetches_what_hosts_elsewhere_wrote_and_nothing_of_its_own_machine(
    machine: Machines, store: Watched
) -> None:
    driver = a_trial(machine("head"))
    elsewhere = acquire_ownership(machine("worker").trial(driver.trial_id))
    elsewhere.write_predictions(ROWS)
    elsewhere.write_adapter(adapter())
    saved(elsewhere, 1)
    driver.pull()
    assert driver.predictions_file().exists()
    assert not driver.adapter_folder.exists()  # large, and nobody needs it there
    assert not checkpoint.places(driver.checkpoints_folder)
    acquire_ownership(machine("head").trial(driver.trial_id))
    store.asked.clear()
    driver.pull()
    assert [kind for kind, _ in store.asked] == ["get"]


def test_what_was_not_fetched_is_not_damaged_and_is_there_once_it_is_wanted(
    machine: Machines,
) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    here.write_adapter(adapter())
    here.write_summary({"state": "finished"})
    there = machine("there")
    there.pull()
    (read,) = there.trials()
    assert read.damaged_adapter() == []
    read.pull_trained()
    assert (read.adapter_folder / "adapter_model.safetensors").read_text() == "weights"
    (read.adapter_folder / "adapter_model.safetensors").write_text("altered")
    assert read.damaged_adapter() != []


def test_an_adapter_that_is_gone_there_is_damaged(machine: Machines, store: Watched) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    here.write_adapter(adapter())
    here.write_summary({"state": "finished"})
    store.delete([f"trials/{here.trial_id}/adapter/adapter_model.safetensors"])
    there = machine("there")
    there.pull()
    (read,) = there.trials()
    assert read.damaged_adapter() != []


def test_a_beaten_model_goes_there_too_whether_it_was_fetched_or_not(
    machine: Machines, store: Watched
) -> None:
    here = acquire_ownership(a_trial(machine("here")))
    here.write_model(adapter("x" * 50))
    here.write_summary({"state": "finished"})
    there = machine("there")
    there.pull()
    (read,) = there.trials()
    assert read.model_bytes == 50
    assert read.discard_model("beaten") == 50
    assert list(store.list(f"trials/{here.trial_id}/model/")) == []
    assert read.damaged_adapter() == []


def test_a_result_that_is_discarded_or_set_aside_is_so_for_every_machine(
    machine: Machines,
) -> None:
    here = a_trial(machine("here"))
    here.write_summary({"state": "failed"})
    there = machine("there")
    there.pull()
    here.discard_result()
    here.set_aside(here.spec_file)
    there.pull(prune=True)
    folder = there.trial(here.trial_id)
    assert not folder.summary_file.exists()
    assert not folder.spec_file.exists()
    assert folder.spec_file.with_name("spec.json.damaged").exists()


def test_what_is_removed_there_goes_here_too_and_what_was_written_since_stays(
    machine: Machines, store: Watched
) -> None:
    here = a_trial(machine("here"))
    here.write_summary({"state": "failed"})
    here.write_predictions(ROWS)
    there = machine("there")
    there.pull()
    here.discard_result()
    assert here.mirror is not None
    here.mirror.retract_files(here.predictions_file())
    folder = there.trial(here.trial_id)
    folder.predictions_file().write_text("written since, and not published yet")
    there.pull()
    assert not folder.summary_file.exists()
    assert folder.predictions_file().read_text() == "written since, and not published yet"
    assert folder.spec_file.exists()


def test_who_is_about_to_train_tells_from_where_it_will_go_on(
    machine: Machines, store: Watched
) -> None:
    """What was never published is no checkpoint, though it lies here and was taken over here."""
    here = acquire_ownership(a_trial(machine("here")))
    saved(here, 1)
    store.fails_at = "step-00000002/state.json"
    with pytest.raises(StorageError):
        saved(here, 2)
    store.fails_at = ""
    again = machine("here").trial(here.trial_id)
    again.pull_all()
    latest = checkpoint.load_latest(again.checkpoints_folder)
    assert latest is not None and latest.step == 1


def test_signs_of_life_are_published_now_and_then_and_seen_elsewhere(
    machine: Machines, store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = a_trial(machine("head"))
    worker = acquire_ownership(machine("worker").trial(head.trial_id))
    silent = head.sign_of_life(every=0.0)
    for step in range(50):
        worker.write_progress({"step": step})
        worker.append_log(f"step {step}")
    assert len([key for key in store.of("put") if key.endswith("progress.json")]) == 1
    alive = head.sign_of_life(every=0.0)
    assert alive != silent
    assert head.sign_of_life(every=0.0) == alive
    assert (head.progress() or {})["step"] == 0
    monkeypatch.setattr(mirror, "SECONDS_BETWEEN_SIGNS", 0.0)
    worker.write_progress({"step": 50})
    store.asked.clear()
    assert head.sign_of_life(every=3600.0) == alive  # not asked again yet
    assert store.asked == []
    assert head.sign_of_life(every=0.0) != alive
    assert (head.progress() or {})["step"] == 50


def test_signs_that_can_not_be_published_do_not_end_a_trial(
    machine: Machines, store: Watched
) -> None:
    worker = acquire_ownership(a_trial(machine("worker")))
    store.fails_at = "progress.json"
    worker.write_progress({"step": 1})
    worker.append_log("still here")
    store.fails_at = "owner.json"
    worker.write_progress({"step": 2})


def test_the_log_comes_with_what_counts(machine: Machines, store: Watched) -> None:
    worker = acquire_ownership(a_trial(machine("worker")))
    worker.append_log("first")
    worker.append_log("last")
    worker.write_summary({"state": "finished"})
    found = store.get(f"trials/{worker.trial_id}/worker.log")
    assert found is not None
    assert found.content == b"first\nlast\n"


def test_keys_that_lead_elsewhere_are_not_fetched(
    machine: Machines, tmp_path: Path, store: Watched
) -> None:
    import obstore

    inner = store._store
    assert isinstance(inner, BucketStore)
    for key in ("trials/.hidden/spec.json", "trials/a/.mirror.json", "trials/a/b c"):
        obstore.put(inner._store, key, b"x")
    there = machine("there")
    there.pull()
    assert [*there.trials()] == []
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.name[0] != "."]


def test_a_run_of_a_url_lies_below_the_cache_and_a_trial_is_named_by_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path))
    run = RunFolder.at("s3://bucket/sweeps/one/")
    assert run.place == "s3://bucket/sweeps/one"
    assert run.storage == "s3://bucket/sweeps"
    assert run.path.name == "one"
    assert run.path.is_relative_to(tmp_path)
    assert run.tracking_database.parent == run.path.parent  # of all runs of that storage, as ever
    assert working_copy("s3://bucket/other/one") != run.path
    trial = run.trial("abc")
    assert trial.place == "s3://bucket/sweeps/one/trials/abc"
    assert trial_at(trial.place).path == trial.path
    with pytest.raises(InputError):
        trial_at("s3://bucket/sweeps/one/trials/../x")


def test_a_folder_on_a_disk_is_asked_nothing_more(tmp_path: Path) -> None:
    run = RunFolder.at(tmp_path / "one")
    assert run.mirror is None
    assert run.place == str(tmp_path / "one")
    trial = a_trial(run)
    assert trial_at(trial.place) == trial
    for each in (run.pull, trial.pull, trial.pull_all, trial.pull_trained, trial.publish_signs):
        each()
    trial.write_progress({"step": 1})
    first = trial.sign_of_life(every=0.0)
    time.sleep(0.002)
    trial.write_progress({"step": 2})
    assert trial.sign_of_life(every=0.0) != first
    assert {file.name for file in trial.path.iterdir()} == {"progress.json", "spec.json"}


def contents(store: Watched) -> dict[str, bytes]:
    found = {item.key: store.get(item.key) for item in list(store.list())}
    return {key: each.content for key, each in found.items() if each is not None}
