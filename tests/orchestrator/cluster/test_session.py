"""How Ray is started: it does not change the handling of SIGTERM."""

from __future__ import annotations

import gc
import os
import signal
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from orchestrator.cluster.session import needs_dashboard, start_ray, stop_ray
from orchestrator.config.reader import from_mapping
from orchestrator.execution.signals import DeferredSignals
from tests.orchestrator.tiny_sweep import mapping


@pytest.fixture(autouse=True)
def the_signal_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _terminated(**options: Any) -> None:
    """What ray.init does when the signal comes while it starts (ray 2.60, _private/worker.py)."""
    ray._private.utils.set_sigterm_handler(lambda number, frame: sys.exit(number))
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_while_ray_starts_breaks_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _terminated)
    with DeferredSignals() as signals:
        start_ray("local")
    assert signals.asked


@pytest.mark.parametrize("is_on", [True, False])
def test_no_thread_frees_what_is_ray_s_while_ray_ends(
    monkeypatch: pytest.MonkeyPatch, *, is_on: bool
) -> None:
    """Ray ends a process in which a thread lets go of an object of its while it shuts down."""
    (gc.enable if is_on else gc.disable)()
    cycle: list[Any] = [_Freed()]
    cycle.append(cycle)
    freed, seen = weakref.ref(cycle[0]), []
    del cycle
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append((gc.isenabled(), freed())))
    try:
        stop_ray()
        assert seen == [(False, None)]
        assert gc.isenabled() is is_on
    finally:
        gc.enable()


class _Freed:
    """Stands for a reference of Ray's."""


@pytest.mark.parametrize(
    ("method", "exclude", "needed"),
    [
        ({"lora": {"rank": 2}}, [], False),
        ({"full": {"workers": 1}}, [], False),
        ({"full": {"workers": [1, 2]}}, [], True),
        ({"full": {"zero_stage": 3}}, [], True),
        ({"full": {"workers": [1, 2]}}, [{"workers": 2}], False),
    ],
)
def test_only_a_space_with_trials_of_several_workers_has_ray_s_dashboard(
    method: dict[str, object], exclude: list[object], needed: bool
) -> None:
    space = {"model": "a-model", "method": [method], "batch_size": 4}
    config = from_mapping(mapping(space=space, exclude=exclude))
    assert needs_dashboard(config) is needed
