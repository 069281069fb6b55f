"""Models and data sets of the hub are downloaded once to a node, before any host starts there, and
the driver's token reaches the workers of a cluster that was started without it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from orchestrator.cluster.model_prefetch import ModelFiles, hub_models, prefetch
from orchestrator.planning.sources import ModelSource
from tests.hub_server import COMMIT, Hub, hub_server
from tests.orchestrator.tiny_sweep import REPOSITORY, command, environment, mapping, write_space
from tests.trainables.tasks.own_data.own_file import chats, write_jsonl
from trainables.errors import InputError
from trainables.models.hub import HubAccess, HubModel

TOKEN = "hf_marker7f1c"
_RAY = """
import sys, ray
for attempt in range(3):
    try:
        context = ray.init("local", num_cpus=2, include_dashboard=False, _temp_dir=sys.argv[1])
        break
    except Exception:  # it has a time limit of its own, which a busy machine exceeds
        ray.shutdown()
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def test_models_of_the_hub_are_brought_and_local_ones_need_nothing() -> None:
    sources = [ModelSource("/models/a", "digest"), ModelSource("b/c", "b/c@1", "1")]
    assert hub_models(sources, allow_bin=True) == (HubModel("b/c", "1", allow_bin=True),)
    prefetch(ModelFiles(), on_gpus=True, notify=pytest.fail)  # asks Ray for nothing


@pytest.mark.slow
def test_no_accelerator_is_held_while_models_are_fetched_and_what_is_missing_is_told(
    base_models: Path, tmp_path: Path
) -> None:
    import ray

    free: list[tuple[float, float]] = []

    def look() -> None:
        now = ray.available_resources()
        free.append((now.get("CPU", 0), now.get("GPU", 0)))

    ray.init("local", num_cpus=1, num_gpus=1, include_dashboard=False, logging_level="ERROR")
    try:
        with hub_server(base_models / "small") as hub:
            hub.seconds = 1.5  # of each file, so that it is seen under way
            access = HubAccess(endpoint=hub.url, home=str(tmp_path / "home"))
            model, said = HubModel(hub.name, COMMIT), list[str]()
            prefetch(ModelFiles((model,), access), on_gpus=True, notify=said.append, check=look)
            assert free and set(free) == {(1.0, 1.0)}
            assert not said or said[-1].startswith("The models are on 1 node after")
            assert hub.gets("model.safetensors") == 1
            wrong = ModelFiles((model, HubModel("owner/none", COMMIT)), access)
            with pytest.raises(InputError, match="owner/none can't be fetched by"):
                prefetch(wrong, on_gpus=False, notify=said.append)
            assert hub.gets("model.safetensors") == 1
    finally:
        ray.shutdown()


@pytest.fixture
def cluster() -> Iterator[tuple[str, Path]]:
    """The address of a Ray that knows nothing of the hub, and the folder of its logs."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # its sockets need a short path
    with (folder / "said").open("w") as said, _ray(folder, said) as address:
        yield address, folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ray(folder: Path, said: IO[str]) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _RAY, str(folder)],
        cwd=REPOSITORY,
        env=_without_hub(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(60)


def _without_hub() -> dict[str, str]:
    own = {name: value for name, value in environment().items() if not name.startswith("HF_")}
    return {**own, "RAY_AUTH_MODE": "disabled"}  # who joins would need the token of who started it


def _sweep(
    hub: Hub, address: str, folder: Path, *, space: dict[str, Any] | None = None, **given: str
) -> subprocess.CompletedProcess[str]:
    two = space or mapping(hub.name, search={"algorithm": "random", "trials": 2})
    words = command(write_space(folder / "tiny.yaml", two), folder / "runs", "--address", address)
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, **given}
    return subprocess.run(
        words,
        cwd=REPOSITORY,
        env={**_without_hub(), **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
def test_two_hosts_of_a_node_find_the_weights_there_and_the_token_is_written_nowhere(
    cluster: tuple[str, Path], base_models: Path, tmp_path: Path
) -> None:
    address, logs = cluster
    with hub_server(base_models / "small", token=TOKEN) as hub:
        offline = _sweep(hub, address, tmp_path, HF_HUB_OFFLINE="1")
        assert offline.returncode == 2 and hub.asked == []
        assert "owner/tiny" in offline.stdout and "local folder" in offline.stdout
        done = _sweep(hub, address, tmp_path)
        assert done.returncode == 0, done.stdout
        assert hub.gets("model.safetensors") == 1
        hub.asked.clear()
        again = _sweep(hub, address, tmp_path, HF_HUB_OFFLINE="1")
        assert again.returncode == 0 and hub.asked == [], again.stdout
    snapshot = tmp_path / "home/hub/models--owner--tiny/snapshots" / COMMIT
    assert (snapshot / "model.safetensors").is_file()
    assert len([*(tmp_path / "runs").rglob("summary.json")]) >= 3
    assert [*logs.rglob("*.log")]
    for text in (done.stdout, offline.stdout, *_texts(tmp_path / "runs"), *_texts(logs)):
        assert TOKEN not in text


@pytest.mark.slow
def test_a_data_set_is_fetched_once_and_is_named_by_its_commit(
    cluster: tuple[str, Path], base_models: Path, tmp_path: Path
) -> None:
    address, _ = cluster
    folder = tmp_path / "set"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [{"messages": each} for each in chats()])
    (folder / "README.md").write_text(
        "---\nconfigs:\n- {config_name: default, data_files: train.jsonl}\n---\n"
    )
    split = {"selection": 0.2, "report": 0.2, "seed": 7}
    space = mapping(
        str(base_models / "small"),
        task="chat",
        data={"hub": "owner/chats", "file": "train", "split": split},
        search={"algorithm": "random", "trials": 2},
    )
    space["space"]["prompt"] = "default"
    with hub_server(folder, name="owner/chats", kind="datasets", token=TOKEN) as hub:
        refused = _sweep(hub, address, tmp_path, space=space, HF_HUB_OFFLINE="1")
        assert refused.returncode == 2 and "data.hub: owner/chats" in refused.stdout
        done = _sweep(hub, address, tmp_path, space=space)
        assert done.returncode == 0, done.stdout
        assert hub.gets("train.jsonl") == 1
        hub.asked.clear()
        again = _sweep(hub, address, tmp_path, space=space, HF_HUB_OFFLINE="1")
        assert again.returncode == 0 and hub.asked == [], again.stdout
    specs = [json.loads(file.read_text()) for file in (tmp_path / "runs").rglob("spec.json")]
    assert len(specs) >= 3
    assert {spec["task_options"]["revision"] for spec in specs} == {COMMIT}


def _texts(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and os.access(file, os.R_OK):
            yield file.read_bytes().decode(errors="replace")
