"""Watch: signs of life of a running trial, and where it stood when there were none. LIGHT."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from trainables.errors import Interrupted
from trainables.storage.trial_folder import TrialFolder

HEARTBEAT_SECONDS = 10.0  # a reader takes a trial that is silent for a minute to be dead
_BEFORE_THE_END = 0.8  # of the silence that is allowed: the dump must be there when it is over


class Watchdog:
    """Follows one trial on its host; `beat` is the trial's heartbeat.

    Whoever waits for the host takes it to hang after `silent_seconds` without a beat or an event.
    Shortly before, where each of the process's threads stands is written into the trial's log.
    """

    def __init__(
        self,
        folder: TrialFolder,
        *,
        interrupted: threading.Event,
        silent_seconds: float | None = None,
    ) -> None:
        self._folder = folder
        self._interrupted = interrupted
        self._silent_seconds = silent_seconds
        self._every = min(HEARTBEAT_SECONDS, (silent_seconds or HEARTBEAT_SECONDS) / 4)
        self._last = time.monotonic()
        self._log: IO[str] | None = None

    def beat(self) -> None:
        """Says now and then that the trial still runs; raises Interrupted if it is to leave."""
        if self._interrupted.is_set():
            raise Interrupted
        if time.monotonic() - self._last < self._every:
            return
        now = {"state": "running", "updated": time.time()}
        self._folder.write_progress({**(self._folder.progress() or {}), **now})
        self._last = time.monotonic()
        self._arm()

    @contextmanager
    def over(self, *, times: float = 1.0) -> Iterator[None]:
        """Around what may hang; it is given so many times the silence that is allowed."""
        if self._silent_seconds is None:
            yield
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(self._folder.log_file, flags, 0o644), "a") as log:
            self._log = log
            self._arm(times)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._log = None

    def _arm(self, times: float = 1.0) -> None:
        if self._log is not None and self._silent_seconds is not None:
            seconds = self._silent_seconds * times * _BEFORE_THE_END
            faulthandler.dump_traceback_later(seconds, file=self._log)
