"""The doctor on a real Ray cluster in which one node has other packages, GPUs and storage, and on
this machine alone, where every check passes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from trainables.command_line import DONE, FAILED

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """A head and an odd node on this machine, and the folder that is another one there."""

    address: str
    storage: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if shutil.which("unshare") is None or not _may_unshare():
        pytest.skip("this kernel or user allows no mount namespace: no node with another folder")
    from ray.cluster_utils import Cluster

    storage = tmp_path_factory.mktemp("storage")
    packages = _another_mlflow(tmp_path_factory.mktemp("packages"))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    odd = _odd_node(cluster.address, storage, packages)
    try:
        _await_two_nodes(cluster.address)
        yield Place(cluster.address, storage)
    finally:
        os.killpg(odd.pid, signal.SIGTERM)
        odd.wait(timeout=60)
        cluster.shutdown()


def _may_unshare() -> bool:
    return (
        subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


def _another_mlflow(folder: Path) -> Path:
    """A folder that makes Python find mlflow 9.9."""
    information = folder / "mlflow-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 9.9\n")
    return folder


def _odd_node(address: str, storage: Path, packages: Path) -> subprocess.Popen[bytes]:
    """A node with two GPUs by its own word, another mlflow, and a folder of its own as storage."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}"]
    start = [*ray, "--num-cpus=1", "--num-gpus=2", "--block"]
    own = 'mount -t tmpfs none "$0" && exec "$@"'
    return subprocess.Popen(
        ["unshare", "-m", "sh", "-c", own, str(storage), *start],
        env={**os.environ, "PYTHONPATH": str(packages)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _await_two_nodes(address: str) -> None:
    import ray

    ray.init(address=address, log_to_driver=False)
    try:
        end = time.monotonic() + 120
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < end, "the odd node did not join"
            time.sleep(0.5)
    finally:
        ray.shutdown()


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.doctor.__main__", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def test_a_node_that_differs_is_found_with_all_it_differs_in(place: Place) -> None:
    done = _doctor("--address", place.address, "--storage", str(place.storage))
    said = " ".join(done.stdout.split())
    assert done.returncode == FAILED, done.stdout + done.stderr
    assert "mlflow:" in said and "has 9.9, the others 3." in said
    assert "Ray counts 2, its system has 0" in said
    assert f"{place.storage} is not shared by all nodes" in said
    assert "it is another folder there" in said
    assert "torch sees no GPU there" in said
    assert said.count("mend:") >= 4
    assert not [*place.storage.iterdir()], "it has left something"


def test_a_laptop_without_a_cluster_is_fit(tmp_path: Path) -> None:
    done = _doctor("--address", "local", "--storage", str(tmp_path / "runs"))
    assert done.returncode == DONE, done.stdout + done.stderr
    assert "[9/9] sweep" in done.stdout, "it says how far it is"
    assert "FAIL" not in done.stdout
    assert "a trial to its end on" in done.stdout
