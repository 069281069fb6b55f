"""Ctrl-C: the first one is recorded, the second one exits at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from orchestrator.execution.signals import SIGNALS, DeferredSignals, SecondInterrupt

EACH = pytest.mark.parametrize("number", SIGNALS)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_nothing_was_asked_for() -> None:
    with DeferredSignals() as signals:
        assert not signals.asked
        signals.check()


@EACH
def test_the_first_is_taken_note_of_and_breaks_nothing(number: int) -> None:
    with DeferredSignals() as signals:
        send(number)
        assert signals.asked
        with pytest.raises(KeyboardInterrupt):
            signals.check()
    assert signals.asked


@EACH
def test_the_second_leaves_at_once(number: int) -> None:
    with pytest.raises(SecondInterrupt), DeferredSignals():
        send(signal.SIGINT)
        send(number)


def test_one_of_an_earlier_with_counts() -> None:
    signals = DeferredSignals()
    with signals:
        send(signal.SIGINT)
    with signals:
        assert signals.asked


@EACH
def test_it_is_taken_from_who_takes_it(number: int) -> None:
    with DeferredSignals() as signals:
        signal.signal(number, signal.SIG_IGN)
        signals.take()
        send(number)
        assert signals.asked


@pytest.fixture
def python_handler() -> Iterator[None]:
    """Python's own handler of SIGINT, also where it was ignored at the start (`nohup`)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handler")
def test_afterwards_it_means_what_it_did_before() -> None:
    with DeferredSignals():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        send(signal.SIGINT)
    assert not isinstance(raised.value, SecondInterrupt)
