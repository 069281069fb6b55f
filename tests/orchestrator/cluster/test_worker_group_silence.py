"""A worker group is not waited for without end, and knows the errors of another rank."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from orchestrator.cluster.train_run import Layout, failure_of_train
from orchestrator.cluster.worker_group import WorkerGroup
from trainables.storage.trial_folder import TrialFolder
from trainables.workers.group_member import train_as_member
from trainables.workers.outcomes import Failure

NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "
REMOTE = (
    "remote process exited or there was a network error, NCCL version 2.27.7\nncclRemoteError: "
)
CUDA = "unhandled cuda error, NCCL version 2.27.7\nncclUnhandledCudaError: Call to CUDA failed."
LOST = [
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed"),
    DistBackendError(f"{NCCL}{REMOTE}A call failed possibly due to a network error."),
    DistBackendError("NCCL communicator was aborted on rank 0."),
    DistNetworkError("failed to recv, got 0 bytes"),
    DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//cuda//0"),
]
OWN = [
    DistBackendError(f"{NCCL}{CUDA}"),
    DistBackendError(f"{NCCL}invalid usage\nncclInvalidUsage: Duplicate GPU detected"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    ValueError("no such column"),
]


class Deaf(WorkerGroup):
    """A group whose workers never end; `was_abandoned` instead of killing the process."""

    was_abandoned = False

    def abandon(self) -> None:
        self.was_abandoned = True


def deaf(folder: Path, *, silent_seconds: float, lives_for: float = 600.0) -> Deaf:
    group = Deaf(Layout(2, 1, 0), {})
    group._folder, group._silent_seconds = TrialFolder(folder), silent_seconds
    group._has_started = True
    stop = threading.Event()
    group._train_thread = threading.Thread(target=stop.wait, args=(lives_for,), daemon=True)
    group._train_thread.start()
    return group


@pytest.mark.parametrize("end", ["interrupt", "close"])
def test_workers_that_are_silent_for_too_long_are_ended(end: str, tmp_path: Path) -> None:
    group = deaf(tmp_path, silent_seconds=0.3)
    began = time.monotonic()
    getattr(group, end)()
    assert group.was_abandoned
    assert 0.3 <= time.monotonic() - began < 5


def test_workers_that_give_signs_of_life_may_take_longer(tmp_path: Path) -> None:
    group = deaf(tmp_path, silent_seconds=0.4, lives_for=1.5)

    def beat() -> None:
        for number in range(14):
            group._folder.write_progress({"state": "running", "updated": number})
            time.sleep(0.1)

    threading.Thread(target=beat, daemon=True).start()
    began = time.monotonic()
    group.interrupt()
    assert time.monotonic() - began > 1
    assert not group.was_abandoned


@pytest.mark.parametrize("error", [*LOST, *OWN], ids=lambda error: str(error)[-30:])
def test_a_lost_member_is_known_under_any_backend(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial goes on elsewhere; an error of a worker's own ends it with the reason."""
    from ray.train.v2.api.exceptions import WorkerGroupError

    told: list[Failure] = []
    is_lost = error in LOST

    def run(self: Any, provenance: dict[str, str], *, device_shared: bool) -> None:
        raise RuntimeError("step 3 failed") from error

    monkeypatch.setattr("trainables.workers.group_member._Member.__init__", lambda *_: None)
    monkeypatch.setattr("trainables.workers.group_member._Member.run", run)
    coordinator: Any = type("Coordinator", (), {"on_failure": lambda self, one: told.append(one)})()
    with pytest.raises(RuntimeError, match="step 3"):
        train_as_member(
            tmp_path,
            coordinator,
            provenance={},
            silent_seconds=None,
            device_shared=False,
            interrupted=threading.Event(),
        )
    assert bool(told) != is_lost
    failure = failure_of_train(WorkerGroupError("workers failed", {0: error}))
    assert (failure is None) == is_lost
