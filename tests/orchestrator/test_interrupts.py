"""Specification of Ctrl-C: the first one is taken note of, the second one leaves at once."""

from __future__ import annotations

import os
import signal

import pytest

from orchestrator.interrupts import InterruptedAgain, NotedSignals, asked_to_stop


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_nothing_was_asked_for() -> None:
    with NotedSignals() as signals, asked_to_stop(noted=signals) as asked:
        assert not asked()


def test_the_first_is_taken_note_of_and_breaks_nothing() -> None:
    with NotedSignals() as signals, asked_to_stop(noted=signals) as asked:
        ctrl_c()
        assert asked()
    assert asked()


def test_the_second_leaves_at_once() -> None:
    with (
        pytest.raises(InterruptedAgain),
        NotedSignals() as signals,
        asked_to_stop(noted=signals),
    ):
        ctrl_c()
        ctrl_c()


def test_afterwards_it_means_what_it_did_before() -> None:
    with NotedSignals() as signals, asked_to_stop(noted=signals):
        ctrl_c()
    with pytest.raises(KeyboardInterrupt) as raised:
        ctrl_c()
    assert not isinstance(raised.value, InterruptedAgain)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_whose_exception_is_lost_is_noted(number: int) -> None:
    class LosesIt:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)  # what a destructor raises is ignored

    before = signal.signal(number, signal.default_int_handler)
    try:
        with NotedSignals() as signals:
            signals.check()
            LosesIt()
            assert signals.asked
            with asked_to_stop(noted=signals) as asked:
                assert asked()
            with pytest.raises(KeyboardInterrupt):
                signals.check()
    finally:
        signal.signal(number, before)


def test_other_signals_are_no_wish_to_stop() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with NotedSignals() as signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not signals.asked
    finally:
        signal.signal(signal.SIGUSR1, before)
