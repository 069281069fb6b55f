"""The command that stands for Python where nothing is forked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.cluster.forked_python import ForkedPython
from orchestrator.cluster.hosts.host_actors import HostActors
from orchestrator.cluster.hosts.host_shape import HostShape, SharingPolicy
from trainables.workers import fork_server


def test_it_is_python_unless_a_fork_is_wanted() -> None:
    with ForkedPython(cpus=None, wanted=False) as forked:
        assert forked.python == (sys.executable,)


def test_nothing_is_forked_on_a_machine_with_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "_GPU_DRIVERS", (str(tmp_path),))
    assert not fork_server.can_fork()
    with ForkedPython(cpus=None) as forked:
        assert forked.python == (sys.executable,)


@pytest.mark.parametrize(
    ("gpus", "python", "expected"),
    [
        (0.0, "a command", {"py_executable": "a command"}),
        (1.0, "a command", None),
        (0.0, None, None),
    ],
)
def test_only_hosts_without_a_gpu_are_forks(
    gpus: float, python: str | None, expected: dict[str, str] | None
) -> None:
    actors = HostActors(HostShape(1.0, gpus, 1), SharingPolicy(), {}, python)
    assert actors._runtime_env() == expected
