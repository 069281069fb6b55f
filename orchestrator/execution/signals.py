"""DeferredSignals: the first Ctrl-C or SIGTERM ends a sweep in order, the second at once."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_WISH_SECONDS = 0.2  # `timeout` sends its signal to the process and again to its group
STUCK_SECONDS = 10.0  # a start of Ray that is interrupted takes some
AT_ONCE_SECONDS = 1.0  # from the second one on; Python's handler ends it sooner where it can
EXIT_CODE = 130


class SecondInterrupt(KeyboardInterrupt):
    """The user interrupted again, without waiting for checkpoints."""


class DeferredSignals:
    """Inside its `with`, the first of SIGNALS only sets `asked`; each further one raises
    SecondInterrupt, but for one that comes with the first.

    An exception that a handler raises during an import or the start of Ray may be lost, or leave a
    lock held. A signal that was ignored before stays ignored, as `nohup` and a shell's `&` want it.
    For the main thread only; may be entered again.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0

    def __enter__(self) -> DeferredSignals:
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._before = {
            number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN
        }
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> None:
        """Sets the handlers again, after a library has replaced them."""
        for number in self._before:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def leave_if_stuck(self, last_words: Callable[[], None]) -> Iterator[None]:
        """For code that may wait outside Python, where no handler runs: ends the process there.

        That is STUCK_SECONDS after a signal, AT_ONCE_SECONDS after a second one, and after
        `last_words`.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(read_end, last_words), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(write_end)  # which ends the thread

    def _note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._asked_at = True, now
        elif now - self._asked_at > ONE_WISH_SECONDS:
            raise SecondInterrupt


def _watch(arrivals: int, last_words: Callable[[], None]) -> None:
    """Reads the number of each signal that arrives, until the other end is closed."""
    first: float | None = None
    leave_at = math.inf
    with open(arrivals, "rb", buffering=0) as numbers:  # it is a descriptor
        while True:
            now = time.monotonic()
            wait = None if first is None else max(0.0, leave_at - now)
            if not select.select([numbers], [], [], wait)[0]:
                last_words()
                os._exit(EXIT_CODE)
            number, now = numbers.read(1), time.monotonic()
            if not number:
                return
            if number[0] not in SIGNALS:
                continue
            if first is None:
                first, leave_at = now, now + STUCK_SECONDS
            elif now - first > ONE_WISH_SECONDS:
                leave_at = min(leave_at, now + AT_ONCE_SECONDS)
