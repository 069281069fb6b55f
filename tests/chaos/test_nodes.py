"""Nodes that are lost while they run a trial: it resumes on another node, others are unaffected.

The Ray cluster has a head without CPUs and two nodes with one each, on this machine; the trials
train a tiny model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.hosts.host_scheduler import (
    NODE_POLL_SECONDS,
    start_host_scheduler,
)
from orchestrator.cluster.hosts.host_shape import HostShape
from orchestrator.execution.tune_trial import RetryBudget
from tests.orchestrator import tiny_sweep
from tests.orchestrator.execution.test_tune_trial import open_proxy
from tests.tiny_models import make_llama
from trainables.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow

MARGIN = 3
ATTEMPTS = 4


@dataclass
class Nodes:
    """The cluster, with a host on each node, and two trials that have reported a rung each."""

    cluster: Any
    scheduler: Any
    proxies: tuple[Any, Any]

    def node_of(self, proxy: Any) -> str:
        import ray

        return str(ray.get(proxy._host.node_id.remote()))

    def remove(self, node_id: str) -> None:
        """As a machine that is switched off: what ran there does nothing any more.

        Ray's workers live on for a while after their node, and could finish a trial as small.
        """
        (node,) = [node for node in self.cluster.worker_nodes if node.node_id == node_id]
        hosts = [proxy._host for proxy in self.proxies if self.node_of(proxy) == node_id]
        self.cluster.remove_node(node, allow_graceful=False)
        for host in hosts:
            _until(partial(_has_died, host))

    def drain(self, node_id: str) -> None:
        """As a provider's notice that a spot machine will be taken in a minute."""
        import ray
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        client = ray._raylet.GcsClient(address=self.cluster.address)
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int(1000 * (time.time() + 60))
        accepted, refused = client.drain_node(node_id, reason, "a spot machine", deadline)
        assert accepted, refused

    def counts(self) -> tuple[int, int, int]:
        import ray

        told: tuple[int, int, int] = ray.get(self.scheduler.counts.remote())
        return told


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    import ray

    for limit in ("raylet_start_wait_time_s", "gcs_server_request_timeout_seconds"):
        monkeypatch.setenv(f"RAY_{limit}", "300")
    cluster = _head()
    try:
        for _ in range(2):
            _add_node(cluster)
        environment = {"PYTHONPATH": str(tiny_sweep.REPOSITORY), "OMP_NUM_THREADS": "1"}
        ray.init(
            address=cluster.address,
            namespace="sweep",
            log_to_driver=False,
            runtime_env={"env_vars": environment},
        )
        scheduler = start_host_scheduler("scheduler", HostShape(1, 0, 2), provenance={})
        ray.get(scheduler.open.remote())
        yield Nodes(cluster, scheduler, _begun(tmp_path))
    finally:
        ray.shutdown()
        cluster.shutdown()


def _head() -> Any:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=False)
    _add_node(cluster, num_cpus=0, include_dashboard=False)
    return cluster


def _add_node(cluster: Any, **arguments: Any) -> None:
    """Ray waits 30 seconds for a node to come up, which is short on a machine that is busy."""
    for attempt in range(ATTEMPTS):
        try:
            cluster.add_node(wait=False, **{"num_cpus": 1, **arguments})
        except Exception as error:
            if "timed out" not in str(error) or attempt == ATTEMPTS - 1:
                raise
        else:
            return


def _begun(folder: Path) -> tuple[Any, Any]:
    run, model = RunFolder(folder / "run"), make_llama(folder / "model")
    first, second = (open_proxy(run, model, rank=rank) for rank in (2, 4))
    for proxy in (first, second):
        while "objective" not in proxy.step():
            pass
    return first, second


def test_a_node_that_is_lost(nodes: Nodes) -> None:
    moved, other = nodes.proxies
    place = nodes.node_of(other)
    nodes.remove(nodes.node_of(moved))
    last = _to_the_end(nodes.proxies)
    assert [result["event"]["kind"] for result in last] == ["finished", "finished"]
    assert moved._losses != RetryBudget()
    assert moved._losses.count == 0  # it has got further since
    assert other._losses == RetryBudget()
    assert _attempts(moved) == 2  # from its checkpoint, not from the beginning
    assert _attempts(other) == 1
    for proxy in nodes.proxies:
        assert _rungs(proxy) == [0.25, 0.5, 1.0]
    assert nodes.counts() == (1, 1, 0)  # one waits for a node; nobody waits for it
    _add_node(nodes.cluster)
    _until(lambda: nodes.counts() == (2, 0, 0))
    assert place in [node["NodeID"] for node in _alive()]


def test_a_node_that_is_drained(nodes: Nodes) -> None:
    moved, other = nodes.proxies
    leaving, staying = nodes.node_of(moved), nodes.node_of(other)
    nodes.drain(leaving)
    time.sleep(MARGIN * NODE_POLL_SECONDS)  # a tiny trial would end before the notice is seen
    places: list[str] = []
    last = _to_the_end(nodes.proxies, look=lambda: places.append(nodes.node_of(moved)))
    assert [result["event"]["kind"] for result in last] == ["finished", "finished"]
    assert moved._losses == other._losses == RetryBudget()  # a notice is no fault of the trial
    assert _attempts(moved) == 2
    assert _attempts(other) == 1
    assert set(places) <= {leaving, staying}
    assert places[-1] == staying
    for proxy in nodes.proxies:
        assert _rungs(proxy) == [0.25, 0.5, 1.0]


def _to_the_end(proxies: tuple[Any, Any], look: Callable[[], Any] = lambda: None) -> list[Any]:
    """Both trials at once: the one that has lost its node waits for the other's."""

    def run(proxy: Any) -> Any:
        while not (result := proxy.step())["done"]:
            if proxy is proxies[0]:
                look()
        proxy.cleanup()
        return result

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, proxies))


def _attempts(proxy: Any) -> int:
    return int((proxy._folder.summary() or {})["attempts"])


def _rungs(proxy: Any) -> list[float]:
    history = (proxy._folder.summary() or {})["history"]
    return [event["fraction"] for event in history if event["kind"] == "rung"]


def _has_died(host: Any) -> bool:
    import ray

    try:
        ray.get(host.node_id.remote(), timeout=1)
    except ray.exceptions.RayActorError:
        return True
    except ray.exceptions.GetTimeoutError:
        pass
    return False


def _alive() -> list[Any]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.5)
