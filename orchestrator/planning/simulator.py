"""Predictions: asks `python -m trainables.simulation.service`, one process beside the driver, for
memory and FLOPs of trials.

The driver imports no torch; that process does, and ends with its standard input, so with the
driver however that ends. Where it dies nothing is predicted any more, and the sweep goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.shipped_files import ROOT
from trainables.resources.estimate import TrialEstimate

_OFFLINE = {"HF_HUB_OFFLINE": "1"}  # for a plan no tokenizer is fetched
SERVICE = ("-m", "trainables.simulation.service")  # of the command `python`
_LEAVES_WITHIN_SECONDS = 2.0
ANSWERS_WITHIN_SECONDS = 300.0  # trials wait for their forecasts: one that hangs is given up


class SimulatorClient:
    """Answers about trials, each kept once it is known.

    `start` returns at once: the process imports in the background. `of` waits for its answer and
    may be called from any thread; None: it can't be predicted. `warn` is told each reason once.
    """

    def __init__(
        self,
        *,
        cache: Path | None,
        warn: Callable[[str], None],
        offline: bool = False,
        command: tuple[str, ...] = (sys.executable, *SERVICE),
    ) -> None:
        self._command = [*command, *([] if cache is None else ["--cache", str(cache)])]
        self._environment = {"OMP_NUM_THREADS": "1", **(_OFFLINE if offline else {})}
        self._warn = warn
        self._known: dict[str, TrialEstimate | None] = {}
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None
        self._asking = threading.Lock()
        self._over = False
        self._said: set[str] = set()

    def start(self) -> None:
        """Starts the process, unless it was already."""
        if self._process is not None or self._over:
            return
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the process
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                start_new_session=True,  # Ctrl-C is the driver's to answer
            )
        except OSError as error:
            self._end(f"the process that predicts did not start ({error.strerror})")

    def of(self, request: Mapping[str, Any]) -> TrialEstimate | None:
        """The answer to a request (see `trainables.simulation.estimate.predict_trial`)."""
        key = json.dumps(request, sort_keys=True)
        with self._asking:
            if key not in self._known and not self._over:
                self.start()
                self._known[key] = self._answer(key)
            return self._known.get(key)

    def close(self) -> None:
        """Ends the process; whoever waits for an answer gets None."""
        self._over = True
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVES_WITHIN_SECONDS)

    def _answer(self, request: str) -> TrialEstimate | None:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        too_late = threading.Timer(ANSWERS_WITHIN_SECONDS, process.kill)
        too_late.daemon = True
        too_late.start()
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            told = json.loads(line) if line else None
        except (OSError, ValueError):
            told = None
        finally:
            too_late.cancel()
        if told is None:
            self._end(f"the process that predicts has ended: {self._last_words()}")
            return None
        if "error" in told:
            self._say(f"a configuration can't be predicted: {told['error']}")
            return None
        return TrialEstimate.from_json(told["prediction"])

    def _end(self, reason: str) -> None:
        if not self._over:
            self._say(f"{reason}. What is not known yet runs without a prediction.")
        self.close()

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            self._warn(f"warning: {reason}")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
