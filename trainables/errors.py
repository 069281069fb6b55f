"""InputError: what a user gave that can't be used, all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

CHANGED = "has changed since this trial was planned; run the sweep under another --name."


class InputError(ValueError):
    """One or more faults in what the user gave; the command line prints them and exits with 2.

    Each message says where, what was given, what is allowed and what to do next.
    """

    def __init__(self, messages: str | Sequence[str]) -> None:
        self.messages = (messages,) if isinstance(messages, str) else tuple(messages)
        super().__init__("\n".join(self.messages))


def first_line(error: BaseException) -> str:
    """An error in one line, as 'ValueError: what it says first'."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """' Did you mean X?' for a near miss, else ' Allowed: a, b, c.'"""
    names = sorted(allowed)
    close = difflib.get_close_matches(str(given), names, n=1)
    return f" Did you mean '{close[0]}'?" if close else f" Allowed: {', '.join(names)}."


class Interrupted(Exception):  # noqa: N818  # no error: somebody wants the device back
    """Raised by a trial's heartbeat: it is to save a checkpoint and leave."""


class Discarded(Exception):  # noqa: N818
    """Thrown into a trial that has ended for the driver: it is to leave and save nothing."""
