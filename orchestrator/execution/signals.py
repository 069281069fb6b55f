"""What Ctrl-C and SIGTERM mean while trials run: first all ends in order, then at once."""

from __future__ import annotations

import os
import signal
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SecondInterrupt(KeyboardInterrupt):
    """The user does not want to wait for checkpoints."""


class DeferredSignals:
    """Inside its `with`, a first Ctrl-C or SIGTERM breaks nothing off, whoever is at work: `asked`
    says that it came. Each further one raises InterruptedAgain.

    What a handler raises in the middle of an import or of Ray's start may be lost there, or leave
    a lock held for ever. In the main thread only; may be entered again.
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
        """Takes the signals again from who has taken them meanwhile."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises KeyboardInterrupt if one has come."""
        if self.asked:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise SecondInterrupt
        self.asked = True


def terminate_like_ctrl_c() -> None:
    """SIGTERM, a preemption notice, means from here on what Ctrl-C means."""
    signal.signal(signal.SIGTERM, lambda number, frame: os.kill(os.getpid(), signal.SIGINT))
