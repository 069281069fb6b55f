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
from dataclasses import dataclass
from typing import Any, NoReturn

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
        self._asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked_at is not None

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
    def leave_if_stuck(
        self,
        last_words: Callable[[], None],
        *,
        every: float = STUCK_SECONDS,
        is_stuck: Callable[[], bool] = lambda: True,
    ) -> Iterator[None]:
        """For code that may wait outside Python, where no handler runs: ends the process there.

        That is once `is_stuck`, which is asked `every` so many seconds after the first signal, and
        AT_ONCE_SECONDS after a second one. `last_words` is called before; both are called in
        another thread.
        """
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        watch = _Watch(read_end, last_words, every, is_stuck, self._asked_at)
        before = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        threading.Thread(target=watch.run, daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(write_end)  # which ends the thread

    def _note(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > ONE_WISH_SECONDS:
            raise SecondInterrupt


@dataclass
class _Watch:
    """Reads the number of each signal that arrives, until the other end is closed."""

    arrivals: int
    last_words: Callable[[], None]
    every: float
    is_stuck: Callable[[], bool]
    first: float | None

    def run(self) -> None:
        at = math.inf if self.first is None else time.monotonic() + self.every
        insists = False
        with open(self.arrivals, "rb", buffering=0) as numbers:  # noqa: PTH123  # a descriptor
            while True:
                wait = None if at == math.inf else max(0.0, at - time.monotonic())
                if not select.select([numbers], [], [], wait)[0]:
                    if insists or self.is_stuck():
                        self._leave()
                    at = time.monotonic() + self.every
                    continue
                number = numbers.read(1)
                if not number:
                    return
                if number[0] in SIGNALS:
                    insists |= self._is_second()
                    at = time.monotonic() + (AT_ONCE_SECONDS if insists else self.every)

    def _is_second(self) -> bool:
        now = time.monotonic()
        if self.first is None:
            self.first = now
        return now - self.first > ONE_WISH_SECONDS

    def _leave(self) -> NoReturn:
        try:
            self.last_words()
        finally:
            os._exit(EXIT_CODE)
