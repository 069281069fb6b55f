"""Ctrl-C: the first one is recorded, the second one exits at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestrator.execution.signals import (
    ONE_WISH_SECONDS,
    SIGNALS,
    DeferredSignals,
    SecondInterrupt,
)

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
        time.sleep(1.5 * ONE_WISH_SECONDS)
        send(number)


@EACH
def test_one_that_is_sent_to_the_process_and_to_its_group_is_one(number: int) -> None:
    with DeferredSignals() as signals:
        send(number)
        send(number)
    assert signals.asked


@EACH
def test_one_that_was_ignored_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with DeferredSignals() as signals:
            signals.take()
            send(number)
            assert not signals.asked
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


STUCK = """
import hashlib, os, signal, sys
from orchestrator.execution.signals import DeferredSignals
with DeferredSignals() as signals:
    print("ready", flush=True)
    with signals.leave_if_stuck(lambda: print("last words", flush=True), {}):
        hashlib.pbkdf2_hmac("sha256", b"", b"", 500_000_000)  # no handler runs for minutes
"""


@pytest.mark.parametrize(
    ("options", "signals"),
    [("every=0.2", 1), ("every=60", 2), ("every=0.2, is_stuck=lambda: False", 2)],
    ids=["stuck", "a second signal", "not stuck, a second signal"],
)
def test_code_that_hears_no_signal_is_left_with_the_last_words(options: str, signals: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK.format(options)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for _ in range(signals):
        time.sleep(1.5 * ONE_WISH_SECONDS)
        process.terminate()
    assert process.communicate(timeout=60)[0] == "last words\n"
    assert process.returncode == 130


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


@pytest.fixture(autouse=True)
def python_handler() -> Iterator[None]:
    """Python's own handler of each signal, also where it was ignored at the start (`nohup`)."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_afterwards_it_means_what_it_did_before() -> None:
    with DeferredSignals():
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        send(signal.SIGINT)
    assert not isinstance(raised.value, SecondInterrupt)
