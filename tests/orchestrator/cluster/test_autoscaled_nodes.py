"""Nodes that an autoscaler may start: those of its node types, less the running ones."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it carries no types
import pytest
import yaml

from orchestrator.cluster.nodes import NodeGroup, node_groups, one_accelerator, possible_nodes
from tests.conftest import REPOSITORY
from tests.orchestrator.tiny_sweep import mapping, summaries, sweep, write_space

GPU = {"CPU": 4.0, "GPU": 1.0}
BIG = {"CPU": 48.0, "GPU": 4.0}
HEAD_ID = "f" * 51 + "00000"  # that Ray's provider of nodes on this machine takes for its head's
GROUPS = [NodeGroup("t4", GPU, 2), NodeGroup("a10g_four", BIG, 1), NodeGroup("head", {}, 0)]


def test_all_of_them_while_none_runs() -> None:
    assert possible_nodes(GROUPS, [], max_workers=8) == [BIG, GPU, GPU]


def test_those_that_run_are_not_counted_twice() -> None:
    running = [{"ray.io/node-group": "t4"}, {"ray.io/node-group": "a10g_four"}]
    assert possible_nodes(GROUPS, running, max_workers=8) == [GPU]


def test_more_than_the_file_allows_now_are_none_too_few() -> None:
    group = NodeGroup("t4", GPU, 1)
    assert possible_nodes([group], [{"ray.io/node-group": "t4"}] * 3, max_workers=8) == []


def test_there_are_never_more_workers_than_the_file_allows_of_any_one_type_of_gpu() -> None:
    assert possible_nodes(GROUPS, [], max_workers=2) == [BIG, GPU]
    assert possible_nodes(GROUPS, [{}], max_workers=2) == [BIG]
    assert possible_nodes(GROUPS, [{}, {}], max_workers=2) == []


def test_of_the_shipped_cluster_as_many_gpus_may_come_as_fit_its_most_workers() -> None:
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    nodes = possible_nodes(node_groups(config), [], max_workers=config["max_workers"])
    left, _ = one_accelerator(nodes, "A10G")
    assert config["max_workers"] == 8
    assert sum(node["GPU"] for node in left) == 2 * 4 + 6 * 1


def test_a_type_that_does_not_say_what_it_has_counts_for_nothing() -> None:
    config = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {"head": {"resources": GPU}, "one": {}, "two": {"resources": GPU}},
    }
    assert node_groups(config) == [NodeGroup("two", GPU, 3)]


@pytest.mark.slow
def test_a_sweep_that_starts_while_no_worker_is_up_waits_for_the_autoscaler_and_says_so(
    address: str, base_models: Path, tmp_path: Path
) -> None:
    value = mapping(str(base_models / "small"), scheduler="none", resources={})
    value["search"]["trials"] = 2
    space = write_space(tmp_path / "space.yaml", value)
    done = sweep(space, tmp_path / "runs", "--address", address)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "The cluster's autoscaler may start 2 more nodes." in done.stdout
    ended = summaries(tmp_path / "runs" / "space").values()
    assert sorted(summary["role"] for summary in ended) == ["baseline"] * 2 + ["trial"] * 2
    assert {summary["state"] for summary in ended} == {"finished"}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of a head without a CPU, whose autoscaler may start two nodes of a GPU on this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = Path(tempfile.mkdtemp(prefix="scaled-", dir="/tmp"))  # sockets need a short path
    port = _free_port()
    (folder / "cluster.json").write_text(json.dumps(_cluster(port)))
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}"]
    options = ["--num-cpus=0", "--dashboard-port=0", "--block"]
    with (folder / "log").open("wb") as log:
        head = subprocess.Popen(
            [*ray, f"--autoscaling-config={folder / 'cluster.json'}", *options],
            env={**os.environ, **_settings(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield _address(folder)
    finally:
        head.terminate()
        head.wait(timeout=60)
        _end_what_names(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _settings(folder: Path) -> dict[str, str]:
    return {
        "RAY_TMPDIR": str(folder),
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }


def _cluster(port: int) -> dict[str, Any]:
    """A cluster's file, as `ray up` would leave it on the head."""
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    commands = ("setup", "head_setup", "worker_setup", "initialization")
    starts = ("head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "scaled",
        "max_workers": 2,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": provider,
            "launch_multiple": True,
            "head_node_id": HEAD_ID,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "rsync_exclude": [],
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": head,
            "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "max_workers": 2},
        },
        **{f"{name}_commands": [] for name in (*commands, *starts)},
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _address(folder: Path) -> str:
    """Once the head and its autoscaler are up."""
    file, end = folder / "ray" / "ray_current_cluster", time.monotonic() + 120
    while not (file.exists() and _named(folder, "monitor.py")):
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.5)
    return file.read_text().strip()


def _named(folder: Path, word: str = "") -> list[Any]:
    """The processes whose command line names the folder (and holds the word)."""
    found = [
        (each, " ".join(each.info["cmdline"] or ())) for each in psutil.process_iter(["cmdline"])
    ]
    return [each for each, line in found if str(folder) in line and word in line]


def _end_what_names(folder: Path) -> None:
    """Nodes that the autoscaler has started outlive their head for a while."""
    for process in _named(folder):
        with suppress(psutil.NoSuchProcess):
            process.kill()
