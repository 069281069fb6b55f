"""InputError: what a user gave that can't be used, all of it at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

CHANGED = "has changed since this trial was planned; run the sweep under another --name."


class InputError(ValueError):
    """One or more faults in what the user gave; the command line prints them and exits with 2.

    Each message says where, what was given, what is allowed and what to do next; a fault that is
    met twice has one.
    """

    def __init__(self, messages: str | Sequence[str]) -> None:
        given = (messages,) if isinstance(messages, str) else messages
        self.messages = tuple(dict.fromkeys(given))
        super().__init__("\n".join(self.messages))


def first_line(error: BaseException) -> str:
    """An error in one line, as 'ValueError: what it says first'."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def did_you_mean(given: object, allowed: Iterable[str]) -> str:
    """' Did you mean X?' for a near miss, else ' Allowed: a, b, c.'"""
    names = sorted(allowed)
    near = near_name(given, names)
    return f" Did you mean '{near}'?" if near else f" Allowed: {', '.join(names)}."


def near_name(given: object, names: Iterable[str]) -> str | None:
    """The name that `given` probably misspells, or that has all its words; None if there is none.

    Upper and lower case are alike. As many letters in common as `deepspeed` and `seed` have are not
    enough.
    """
    text, by_lower = str(given).lower(), {name.lower(): name for name in names}
    close = difflib.get_close_matches(text, by_lower, n=_COMPARED)
    return next((by_lower[name] for name in close if _is_near(text, name)), None)


_COMPARED = 5  # names
_ALIKE = 0.72  # share of the letters of both: one wrong letter in four, or two exchanged


def _is_near(text: str, name: str) -> bool:
    alike = difflib.SequenceMatcher(None, text, name).ratio()
    words, others = (set(re.split(r"[\W_]+", each)) for each in (text, name))
    is_short = len(text) == len(name) <= 3  # one wrong letter
    return alike >= _ALIKE or is_short or words <= others or others <= words


class Interrupted(Exception):  # noqa: N818  # no error: somebody wants the device back
    """Raised by a trial's heartbeat: it is to save a checkpoint and leave."""


class Discarded(Exception):  # noqa: N818
    """Thrown into a trial that has ended for the driver: it is to leave and save nothing."""
