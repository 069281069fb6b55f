"""Waiting for what a host answers: for as long as it gives signs of life, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trainables.storage.trial_folder import TrialFolder

LOOKS_EVERY_SECONDS = 1.0  # whether a host still lives and the sweep still goes on
BUCKET_LOOKS_EVERY_SECONDS = 10.0  # each is a request


class HostUnresponsiveError(RuntimeError):
    """A host gave no sign of life for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no sign of life for {seconds:g} seconds")
        self.seconds = seconds


class CancelledWaitError(RuntimeError):
    """Whoever waits has something better to do."""


def wait_for(
    call: Any,
    folder: TrialFolder,
    *,
    silent_seconds: float | None,
    give_up: Callable[[], bool] = lambda: False,
) -> Any:
    """What the host answers to a call about the trial of this folder.

    Raises SilentError after `silent_seconds` (None: never) in which its host wrote nothing there,
    NotWaitedForError once `give_up` is true, and what Ray raises for a host that died.
    """
    import ray

    every = min(BUCKET_LOOKS_EVERY_SECONDS, (silent_seconds or BUCKET_LOOKS_EVERY_SECONDS) / 4)
    began, sign = time.monotonic(), folder.sign_of_life(every=every)
    while True:
        ready, _ = ray.wait([call], timeout=LOOKS_EVERY_SECONDS)
        if ready:
            return ray.get(call)
        if give_up():
            raise CancelledWaitError
        before, sign = sign, folder.sign_of_life(every=every)
        if sign != before:
            began = time.monotonic()
        if silent_seconds is not None and time.monotonic() - began > silent_seconds:
            raise HostUnresponsiveError(silent_seconds)
