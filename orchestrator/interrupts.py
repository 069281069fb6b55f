"""What Ctrl-C means while trials run: the first one ends the sweep in order, the second at once.

An exception raised by a signal's handler is lost where Python ignores exceptions (a destructor, a
callback of the garbage collector), so signals are also noted where none can be lost.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_STOPPING = {signal.SIGINT, signal.SIGTERM}


class InterruptedAgain(KeyboardInterrupt):
    """The user does not want to wait for checkpoints."""


class NotedSignals:
    """Knows inside its `with` of every Ctrl-C and SIGTERM, whichever handler they had.

    In the main thread only.
    """

    def __enter__(self) -> NotedSignals:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._asked = False
        self._before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before)
        self._read.close()
        self._write.close()

    @property
    def asked(self) -> bool:
        """Whether one has come since the beginning."""
        try:
            while numbers := self._read.recv(4096):
                self._asked = self._asked or not _STOPPING.isdisjoint(numbers)
        except BlockingIOError:
            pass
        return self._asked

    def check(self) -> None:
        """Raises KeyboardInterrupt if one has come."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def asked_to_stop(*, noted: NotedSignals) -> Iterator[Callable[[], bool]]:
    """Takes note of the first Ctrl-C, in place of Tune, and gives what says whether it came, or
    had come before.

    The second one raises InterruptedAgain. In the main thread only.
    """
    asked = False

    def leave(number: int, frame: Any) -> None:
        raise InterruptedAgain

    def take_note(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, leave)

    before = signal.signal(signal.SIGINT, take_note)
    try:
        yield lambda: asked or noted.asked
    finally:
        signal.signal(signal.SIGINT, before)
