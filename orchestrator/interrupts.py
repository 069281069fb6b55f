"""What Ctrl-C means while trials run: the first one ends the sweep in order, the second at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class InterruptedAgain(KeyboardInterrupt):
    """The user does not want to wait for checkpoints."""


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Takes note of the first Ctrl-C, in place of Tune, and gives what says whether it came.

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
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
