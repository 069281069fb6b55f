"""DeferredSignals: the first Ctrl-C or SIGTERM ends a sweep in order, the second at once."""

from __future__ import annotations

import os
import signal
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SecondInterrupt(KeyboardInterrupt):
    """The user interrupted again, without waiting for checkpoints."""


class DeferredSignals:
    """Inside its `with`, the first SIGINT or SIGTERM only sets `asked`; each further one raises
    SecondInterrupt.

    An exception that a handler raises during an import or the start of Ray may be lost, or leave a
    lock held. For the main thread only; may be entered again.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> DeferredSignals:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def take(self) -> None:
        """Sets the handlers again, after a library has replaced them."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise SecondInterrupt
        self.asked = True


def terminate_like_ctrl_c() -> None:
    """From here on SIGTERM, as a preemption sends it, has the effect of Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
