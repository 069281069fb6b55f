"""Promise: a trial whose source of truth is a bucket resumes on another machine as if undisturbed.

Uses real training and a real S3 server (moto's); each host has its own disk (SWEEP_CACHE).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import new_place, s3_server
from tests.tiny_trials import finish_host, make_spec
from trainables.spec.events import Event
from trainables.storage.bucket_store import open_store
from trainables.storage.run_folder import RunFolder
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.host import HostProcess
from trainables.workers.outcomes import Failure

pytestmark = pytest.mark.slow


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield f"{new_place()}/tiny"


def test_a_trial_moves_between_machines_and_ends_as_on_one(
    url: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tiny_llama)
    alone = TrialFolder(tmp_path / "disk" / spec.trial_id)
    alone.write_spec(spec, {})
    host = HostProcess({})
    host.start(alone.place)
    expected = finish_host(host)

    def on(machine: str) -> None:
        monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / machine))

    on("head")
    driver = RunFolder.at(url).trial(spec.trial_id)
    driver.write_spec(spec, {})
    on("first")
    lost = HostProcess({})
    assert lost.start(driver.place) == []
    before = [lost.next()]
    while not (isinstance(before[-1], Event) and before[-1].kind == "rung"):
        before.append(lost.next())
    on("second")
    taken = HostProcess({})
    history = taken.start(driver.place)
    assert isinstance(history, list)
    assert history[-1] == before[-1]
    rest = finish_host(taken)
    late = lost.next()  # its machine can reach the bucket again
    assert isinstance(late, Failure)
    assert late.taken_over
    on("third")
    score = HostProcess({}).score_report(driver.place)
    assert isinstance(score, dict), score

    driver.pull()
    summary, whole = driver.summary(), alone.summary()
    assert summary is not None
    assert whole is not None
    measured = ("em_acc", "eval_loss", "train_loss")
    assert {name: summary["metrics"][name] for name in measured} == {
        name: whole["metrics"][name] for name in measured
    }
    told = [(event.kind, event.step) for event in [*history, *rest]]
    assert told == [(event.kind, event.step) for event in expected]
    assert driver.predictions_file().read_bytes() == alone.predictions_file().read_bytes()
    assert driver.report_score() is not None
    driver.pull_trained()
    weights = "adapter_model.safetensors"
    assert (driver.adapter_folder / weights).read_bytes() == (
        alone.adapter_folder / weights
    ).read_bytes()
    keys = [item.key for item in open_store(url).list()]
    assert not [key for key in keys if "/checkpoints/" in key]
