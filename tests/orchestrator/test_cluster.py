"""Specification of how Ray is started: SIGTERM means Ctrl-C before, while and after it starts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from orchestrator.cluster import start_ray


@pytest.fixture(autouse=True)
def the_signal_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _terminated(**options: Any) -> None:
    """What ray.init does when the signal comes while it starts (ray 2.5x, _private/worker.py)."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_while_ray_starts_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", _terminated)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            start_ray("local")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
