"""Ends of worker groups: before their workers start, for lack of memory, by an interruption."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError
from ray.util import placement_group_table

from orchestrator.cluster.train_run import GroupAbandonedError, Layout, failure_of_train
from orchestrator.cluster.worker_group import worker_group_actor
from tests.orchestrator import tiny_sweep
from tests.orchestrator.cluster.test_worker_group import until
from trainables.workers.outcomes import Interruption

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        namespace="sweep",
        include_dashboard=True,  # see cluster.start_ray
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(tiny_sweep.REPOSITORY)}},
    )
    yield
    ray.shutdown()


class Holder:
    """Another's host, which has one of the two CPUs."""

    def is_up(self) -> bool:
        return True


@pytest.mark.usefixtures("two_cpus")
def test_one_that_ends_while_its_workers_wait_for_their_devices_asks_for_them_no_longer(
    tmp_path: Path,
) -> None:
    holder = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.is_up.remote())
    abandoned, recalled = (worker_group_actor(Layout(2, 1, 0), {}) for _ in range(2))
    begun = [
        worker_group.start.remote(str(tmp_path / name), None)
        for worker_group, name in ((abandoned, "one"), (recalled, "other"))
    ]
    until(lambda: states().count("PENDING") == 2)
    time.sleep(12)  # Ray Train has given up once, and begun anew
    until(lambda: states().count("PENDING") == 2)
    abandoned.abandon.remote()
    ray.get(recalled.cancel_unless_started.remote(), timeout=60)
    assert ray.get(begun[1]) == Interruption()
    with pytest.raises(ActorDiedError):
        ray.get(begun[0], timeout=60)
    assert not {"PENDING", "CREATED"} & set(states())
    ray.kill(holder)
    until(lambda: ray.available_resources().get("CPU") == 2)


def states() -> list[str]:
    return [str(group["state"]) for group in placement_group_table().values()]


@pytest.mark.usefixtures("two_cpus")
def test_an_interruption_is_heard_whichever_rank_listens_last() -> None:
    coordinator = worker_group_actor(Layout(4, 1, 0), {})
    watching = [coordinator.until_death.remote() for _ in range(4)]
    listening = [coordinator.until_interrupted.remote() for _ in range(4)]
    coordinator.interrupt.remote()
    heard, _ = ray.wait(listening, num_returns=4, timeout=30)
    assert len(heard) == 4
    assert ray.wait(watching, timeout=0)[0] == []
    ray.kill(coordinator)


def test_what_ends_a_worker_says_what_comes_of_the_trial() -> None:
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    def lost(*causes: Exception) -> Any:
        deaths = [WorkerHealthCheckFailedError("a worker is dead", cause) for cause in causes]
        return failure_of_train(WorkerGroupError("workers died", dict(enumerate(deaths))))

    assert lost(ActorDiedError(), NodeDiedError("a machine was lost")) is None
    out_of_memory = lost(ActorDiedError(), OutOfMemoryError("the node ran out of memory"))
    assert out_of_memory.infeasible
    assert out_of_memory.reason == "its node ran out of memory"
    assert failure_of_train(ControllerError(GroupAbandonedError())) is None
    failed = failure_of_train(ControllerError(ValueError("no such device\nand so on")))
    assert failed is not None and not failed.infeasible
    assert failed.reason == "Ray Train: no such device"
