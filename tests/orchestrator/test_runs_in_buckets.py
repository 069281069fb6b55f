"""Commands that take a run's folder also take its URL, on a machine without a working copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import ask, report, status, sweep
from orchestrator.cluster.nodes import Node
from orchestrator.cluster.storage_check import (
    StorageView,
    check_storage,
    inspect_bucket_from_node,
    unshared_reason,
)
from orchestrator.predict.models import asked_models
from orchestrator.runs.lease_holder import own_lease
from orchestrator.runs.results import open_run, read_trials
from orchestrator.runs.state import make_folder
from tests.buckets import BUCKET, new_place, s3_server
from tests.orchestrator.run_builder import CONFIG, add_baseline, add_trial
from trainables.errors import InputError
from trainables.storage.bucket_store import open_store
from trainables.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def url(server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of two trials and a baseline, of which this machine has nothing."""
    url = f"{new_place()}/one"
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "another machine"))
    run = RunFolder.at(url)
    run.write_text(run.sweep_file, json.dumps(CONFIG))
    best = add_trial(run, right=[1, 1, 1, 0], rank=4, metrics={"train_peak_memory_bytes": 2e9})
    best.write_adapter(_adapter)
    best.write_summary({**(best.summary() or {})})
    add_trial(run, right=[1, 0, 0, 0], rank=2)
    add_baseline(run, right=[0, 0, 0, 0])
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "this machine"))
    return url


def _adapter(place: Path) -> None:
    place.mkdir()
    (place / "adapter_model.safetensors").write_text("weights")


def test_the_status_of_a_run(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([url]) == 0
    shown = capsys.readouterr().out
    assert "No driver holds it" in shown
    assert "75" in shown


def test_a_driver_elsewhere_is_seen(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lease = {**own_lease(nonce="theirs", taken=1.0), "host": "far"}
    open_store(url).put("driver.lock", json.dumps(lease).encode())
    assert status.main([url]) == 0
    assert "A driver holds it: process" in capsys.readouterr().out


def test_its_report_is_written_to_the_bucket(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([url]) == 0
    shown = capsys.readouterr().out
    assert f"{url}/report.md" in shown.replace("\n", "")
    assert "damaged" not in shown
    published = open_store(url).get("report.md")
    assert published is not None
    assert b"75" in published.content


def test_the_answer_to_a_question_loads_what_was_fetched(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask.main([url, "--json"]) == 0
    lines = "\n".join(json.loads(capsys.readouterr().out)["load"])
    (adapter,) = RunFolder.at(url).trials_folder.glob("*/adapter")
    assert str(adapter) in lines
    assert (adapter / "adapter_model.safetensors").read_text() == "weights"


def test_what_is_no_run_is_said(url: str) -> None:
    with pytest.raises(InputError, match=r"/two: no run \(no sweep.yaml there\)"):
        open_run(url.removesuffix("/one") + "/two")
    with pytest.raises(InputError, match="NoSuchBucket"):
        open_run("s3://no-such-bucket/runs/one")
    with pytest.raises(InputError, match="s3://BUCKET/FOLDER"):
        open_run("http://host/one")


def test_a_sweep_is_told_what_is_wrong_with_its_storage(
    server: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main(["--storage", "ftp://host/runs"]) == 2
    assert "s3://BUCKET/FOLDER or gs://BUCKET/FOLDER" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"--storage: s3://no-such-bucket.*Make the bucket first"):
        make_folder(RunFolder.at("s3://no-such-bucket/runs/one"))


def test_a_folder_for_runs_is_left_as_it_was_found(url: str) -> None:
    before = [item.key for item in open_store(url).list()]
    make_folder(RunFolder.at(url))
    assert [item.key for item in open_store(url).list()] == before


def test_a_node_that_reads_writes_and_lists_the_bucket_is_fine(url: str) -> None:
    open_store(url).put("seen-1/driver", b"a word")
    assert inspect_bucket_from_node(url, "seen-1", "a word")["fault"] == ""


def test_a_node_that_reaches_another_bucket_of_that_name_is_found(url: str) -> None:
    fault = inspect_bucket_from_node(url, "seen-2", "a word")["fault"]
    assert "another bucket" in str(fault)


def test_a_node_that_can_not_use_the_bucket_is_named() -> None:
    views = [
        StorageView(Node("10.0.0.1", "10.0.0.1", 1, 0, False), same_machine=True),
        StorageView(Node("10.0.0.2", "10.0.0.2", 1, 0, False), False, fault="HTTP 403"),
    ]
    said = unshared_reason("s3://bucket/runs", views)
    assert said.startswith("s3://bucket/runs cannot be used by all nodes (10.0.0.2: HTTP 403)")
    assert unshared_reason("s3://bucket/runs", views[:1]) == ""


def test_trials_are_read_as_they_were_written(url: str) -> None:
    results = read_trials(open_run(url))
    assert [round(item.metrics["em_acc"], 2) for item in results] == [0.75, 0.25, 0.0]
    assert not [text for item in results for text in item.warnings]


def test_every_node_is_asked_about_a_bucket_also_the_only_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cluster import storage_check

    asked: list[str] = []
    node = Node("10.0.0.1", "10.0.0.1", 1, 0, False)
    monkeypatch.setattr(storage_check, "alive_nodes", lambda: [node])

    def look(place: str, nodes: object) -> list[StorageView]:
        asked.append(place)
        return [StorageView(node, same_machine=True)]

    monkeypatch.setattr(storage_check, "inspect_storage", look)
    assert check_storage(url) is False  # no folder, in which SQLite could lie
    assert asked == [url]


def test_a_run_in_a_storage_folder_called_trials_is_a_run_and_its_trial_a_trial(
    server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "another machine"))
    url = f"s3://{BUCKET}/trials/{tmp_path.name}"
    run = RunFolder.at(url)
    run.write_text(run.sweep_file, json.dumps(CONFIG))
    best, other = (
        add_trial(run, right=right, rank=rank) for right, rank in (([1, 1], 4), ([1, 0], 2))
    )
    for folder in (best, other):
        folder.write_adapter(_adapter)
        folder.write_summary({**(folder.summary() or {})})
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "this machine"))
    for name, expected in ((url, best), (f"{url}/trials/{other.trial_id}/", other)):
        (trial,) = asked_models([name], with_bases=False)
        assert trial.name == expected.trial_id
