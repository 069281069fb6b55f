"""Waits for the answer of a host as long as the host gives signs of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trainables.storage.trial_folder import TrialFolder

LOOKS_EVERY_SECONDS = 1.0  # at the host's signs of life and at the sweep's end
BUCKET_LOOKS_EVERY_SECONDS = 10.0  # each look is a request to the bucket


class HostUnresponsiveError(RuntimeError):
    """A host gave no sign of life for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no sign of life for {seconds:g} seconds")
        self.seconds = seconds


class CancelledWaitError(RuntimeError):
    """The caller of `wait_for` gave up."""


def wait_for(
    call: Any,
    folder: TrialFolder,
    *,
    silent_seconds: float | None,
    give_up: Callable[[], bool] = lambda: False,
) -> Any:
    """Returns the answer of a host to a call about the trial of this folder.

    Raises HostUnresponsiveError after `silent_seconds` (None: never) in which the host wrote no
    sign of life there, CancelledWaitError once `give_up` is true, and Ray's error for a host that
    died.
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
