"""Watchdog: the heartbeat of a running trial, and a dump of its threads if the beats stop."""

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

HEARTBEAT_SECONDS = 10.0  # readers take a trial that is silent for a minute to be dead
_DUMP_AT = 0.8  # of the allowed silence: the dump must be written before the host is killed


class Watchdog:
    """Watches one trial on its host; `beat` is the trial's heartbeat.

    The driver kills a host after `silent_seconds` without a beat or an event. Shortly before that,
    the stack of each thread of the process is written to the trial's log.
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
        """Updates the trial's progress at intervals; raises Interrupted if it was interrupted."""
        if self._interrupted.is_set():
            raise Interrupted
        if time.monotonic() - self._last < self._every:
            return
        now = {"state": "running", "updated": time.time()}
        self._folder.write_progress({**(self._folder.progress() or {}), **now})
        self._last = time.monotonic()
        self._arm()

    @contextmanager
    def guard(self, *, factor: float = 1.0) -> Iterator[None]:
        """A context for work that may hang; it may be silent `factor` times as long as usual."""
        if self._silent_seconds is None:
            yield
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(self._folder.log_file, flags, 0o666), "a") as log:
            self._log = log
            self._arm(factor)
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._log = None

    def _arm(self, factor: float = 1.0) -> None:
        if self._log is not None and self._silent_seconds is not None:
            seconds = self._silent_seconds * factor * _DUMP_AT
            faulthandler.dump_traceback_later(seconds, file=self._log)
