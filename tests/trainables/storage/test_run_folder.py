"""The run folder: a reader sees a complete file, the old one or the new one."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from tests.orchestrator.run_builder import new_spec
from trainables.storage.atomic_files import (
    remove_temporary_files,
    temporary_path,
    write_bytes,
    write_json,
)
from trainables.storage.errors import StorageError
from trainables.storage.run_folder import RunFolder
from trainables.storage.sealed_json import with_checksum
from trainables.storage.trial_folder import TrialFolder

TRIAL_FILES = {"spec.json", "summary.json", "predictions.jsonl", "worker.log", "report.json"}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "tiny")


def test_everything_lies_where_it_is_promised(run: RunFolder) -> None:
    assert run.tracking_database == run.path.parent / "mlflow.db"
    names = {run.sweep_file.name, run.results_file.name, run.report_file.name, run.pareto_file.name}
    assert names == {"sweep.yaml", "results.csv", "report.md", "pareto.png"}
    trial = run.trial("0123")
    files = (trial.spec_file, trial.summary_file, trial.predictions_file(), trial.log_file)
    assert {file.name for file in (*files, trial.report_score_file)} == TRIAL_FILES
    assert trial.path == run.path / "trials" / "0123"
    assert trial.adapter_folder == trial.path / "adapter"


def test_what_is_written_is_read_back(run: RunFolder) -> None:
    run.write_state({"sweep_id": "abc"})
    assert run.state() == {"sweep_id": "abc"}
    spec = new_spec(rank=4)
    trial = run.trial(spec.trial_id)
    trial.write_spec(spec, {"rank": 4})
    assert trial.spec() == spec
    assert json.loads(trial.spec_file.read_text())["suggestion"] == {"rank": 4}
    trial.write_report_score({"split": "report"})
    assert trial.report_score() == {"split": "report"}
    trial.write_estimate({"train_memory_bytes": 5})
    assert trial.estimate() == {"train_memory_bytes": 5}
    assert trial.estimate_file.name == "prediction.json"


def test_what_was_never_written_is_none(run: RunFolder) -> None:
    trial = run.trial("0123")
    assert run.state() is trial.summary() is trial.progress() is trial.report_score() is None
    assert trial.estimate() is None
    assert not trial.done
    assert [*run.trials()] == []


def test_a_summary_makes_a_trial_done(run: RunFolder) -> None:
    trial = run.trial("0123")
    trial.write_spec(new_spec(), {})
    assert not trial.done
    trial.write_summary({"state": "finished"})
    assert trial.done
    trial.discard_result()
    assert not trial.done
    trial.discard_result()


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def crash(*arguments: object) -> None:
        raise OSError("no space left on device")

    run.write_state({"sweep_id": "old"})
    with monkeypatch.context() as crashing:
        crashing.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[broken], crash)
        with pytest.raises(OSError, match="no space"):
            run.write_state({"sweep_id": "new"})
    assert run.state() == {"sweep_id": "old"}
    run.write_state({"sweep_id": "new"})
    assert run.state() == {"sweep_id": "new"}
    assert [file.name for file in run.path.iterdir()] == ["sweep.json"]


def test_a_crash_while_writing_a_first_summary_leaves_the_trial_undone(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*arguments: object) -> None:
        raise OSError

    trial = run.trial("0123")
    trial.write_spec(new_spec(), {})
    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError):
        trial.write_summary({"state": "finished"})
    assert not trial.done


def test_a_file_half_written_beside_its_place_is_no_trial(run: RunFolder) -> None:
    folder = run.trial("0123").path
    folder.mkdir(parents=True)
    (folder / ".spec.json.1.part").write_text("{")
    assert [*run.trials()] == []


@pytest.mark.parametrize("torn", [b"", b'{"state": "fini', b'{"a": "\xc3', b"null", b"[1]"])
def test_a_torn_file_is_as_good_as_none(run: RunFolder, torn: bytes) -> None:
    trial = run.trial("0123")
    trial.write_spec(new_spec(), {})
    for file in (trial.summary_file, trial.progress_file, trial.report_score_file, run.state_file):
        file.write_bytes(torn)
    assert run.state() is trial.summary() is trial.progress() is trial.report_score() is None
    assert not trial.done
    trial.write_summary({"state": "finished"})
    assert trial.done


def test_what_is_not_finite_is_written_as_null(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"loss": math.nan, "all": [1.0, math.inf], "in": {"it": -math.inf}})
    assert json.loads(file.read_text()) == {"loss": None, "all": [1.0, None], "in": {"it": None}}


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a.png", b"\x89PNG\r\n")
    assert (tmp_path / "new" / "a.png").read_bytes() == b"\x89PNG\r\n"


def test_predictions_are_a_line_each_per_split(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "0123")
    trial.write_predictions([{"id": "a", "prediction": "42 €\n"}, {"id": "b", "prediction": ""}])
    trial.write_predictions([{"id": "c", "prediction": "1"}], "report")
    lines = (tmp_path / "0123" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["42 €\n", ""]
    assert (tmp_path / "0123" / "report_predictions.jsonl").exists()


class Synced:
    """The files and folders that were made durable, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._really = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        self.names.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        self._really(handle)


def test_a_written_file_is_durable_and_so_is_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(monkeypatch)
    write_bytes(tmp_path / "in" / "a", b"a")
    assert len(synced.names) == 2
    assert synced.names[0].endswith(".part") and synced.names[1] == "in"


def test_an_adapter_is_durable_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(monkeypatch)
    before: list[str] = []
    trial = TrialFolder(tmp_path / "0123", guard=lambda: before.extend(synced.names))
    trial.write_adapter(_save_adapter)
    assert {"a.json", "a.safetensors"} < set(before) and before[-1].endswith(".part")
    assert synced.names[-1] == "0123"
    assert sorted(file.name for file in trial.adapter_folder.iterdir()) == [
        "a.json",
        "a.safetensors",
    ]


def test_an_adapter_that_can_not_be_written_says_where(tmp_path: Path) -> None:
    def full(beside: Path) -> None:
        raise OSError(28, "No space left on device")

    trial = TrialFolder(tmp_path / "0123")
    with pytest.raises(StorageError, match=r"adapter: .*No space left"):
        trial.write_adapter(full)


def _save_adapter(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "a.safetensors").write_text("weights")


def test_no_two_writers_have_one_name_beside_a_place(tmp_path: Path) -> None:
    """Two nodes number their processes alike."""
    first, second = (temporary_path(tmp_path / "a.json") for _ in range(2))
    assert first != second
    assert first.match(".*.part") and second.match(".*.part")


def test_what_a_killed_removal_has_left_is_removed_too(tmp_path: Path) -> None:
    (tmp_path / "trials" / ".ab.gone").mkdir(parents=True)
    (tmp_path / "trials" / ".ab.gone" / "state.json").write_text("{")
    (tmp_path / ".cd.gone").write_text("{")
    (tmp_path / ".a.json.1.part").write_text("{")
    remove_temporary_files(tmp_path)
    assert [item.name for item in tmp_path.rglob("*")] == ["trials"]


def test_a_torn_line_of_what_was_told_is_none(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "0123")
    trial.append_reported_step(3)
    trial.append_reported_step(12)
    reported_steps = trial.checkpoints_folder / "told"
    reported_steps.write_bytes(reported_steps.read_bytes() + b"1")  # of 16, which was being written
    assert trial.reported_steps(after=0) == {3, 12}


def test_a_folder_in_the_place_of_a_file_is_as_good_as_none(run: RunFolder) -> None:
    trial = run.trial("0123")
    trial.write_spec(new_spec(), {})
    for file in (trial.summary_file, trial.report_score_file, run.state_file):
        file.mkdir()
    assert run.state() is trial.summary() is trial.report_score() is None
    assert not trial.done and not trial.is_sound()
    with pytest.raises(StorageError, match=r"summary\.json"):
        trial.discard_result()


@pytest.mark.parametrize("files", [["predictions.jsonl"], "all", 3])
def test_digests_that_are_no_mapping_stop_no_reader(run: RunFolder, files: object) -> None:
    trial = run.trial("0123")
    write_json(trial.summary_file, with_checksum({"files": files}, place="0123/summary.json"))
    assert trial.damaged_files() == trial.damaged_adapter() == []


def test_a_file_that_can_not_be_set_aside_says_where(run: RunFolder) -> None:
    trial = run.trial("0123")
    trial.write_summary({"state": "finished"})
    (trial.path / "summary.json.damaged").mkdir()
    with pytest.raises(StorageError, match=r"summary\.json"):
        trial.set_aside(trial.summary_file)


def test_a_log_grows_by_whole_lines(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path / "0123")
    trial.append_log("one")
    trial.append_log("two\n")
    assert trial.log_file.read_text() == "one\ntwo\n"


def test_trials_come_in_the_order_of_their_specs(run: RunFolder) -> None:
    for place, name in enumerate(("c", "a", "b")):
        run.trial(name).write_spec(new_spec(), {})
        os.utime(run.trial(name).spec_file, ns=(place, place))
    assert [folder.trial_id for folder in run.trials()] == ["c", "a", "b"]
