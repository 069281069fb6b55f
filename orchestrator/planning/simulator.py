"""SimulatorClient: estimates and preflights from `python -m trainables.simulation.service`.

The driver imports no torch; that process does. It ends with its standard input, and so with the
driver, however that ends. If it dies, the sweep goes on without estimates.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.shipped_files import ROOT
from trainables.preflight.findings import Findings
from trainables.resources.estimate import TrialEstimate
from trainables.spec.trial_spec import TrialSpec

_OFFLINE = {"HF_HUB_OFFLINE": "1"}  # a dry run downloads no tokenizer
SERVICE = ("-m", "trainables.simulation.service")  # arguments of the command `python`
_EXIT_SECONDS = 2.0
ANSWER_SECONDS = 300.0  # trials wait for their forecasts, so a process that hangs is killed


class SimulatorClient:
    """Requests estimates from a process of its own, and keeps them.

    `start` returns at once: the process imports in the background. `of` blocks until the answer is
    there and may be called from any thread; it returns None if there is no estimate, and `warn`
    gets each reason once.
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
        self._requesting = threading.Lock()
        self._is_closed = False
        self._warned: set[str] = set()

    def start(self) -> None:
        """Starts the process if it was not started before."""
        if self._process is not None or self._is_closed:
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

    def of(self, request: Mapping[str, Any], *, warns: bool = True) -> TrialEstimate | None:
        """The answer to a request, by which `predict_trial` of `trainables.simulation.estimate` is
        called; None, and a warning if `warns`, if there is no estimate."""
        key = json.dumps(request, sort_keys=True)
        with self._requesting:
            if key not in self._known and not self._is_closed:
                answer = self._answer(key, warns=warns)
                made = None if answer is None else TrialEstimate.from_json(answer["prediction"])
                if made is None and not warns:
                    return None  # asked again, it is worth the warning
                self._known[key] = made
            return self._known.get(key)

    def preflight(
        self, specs: Sequence[TrialSpec], *, say: Callable[[str], None] = lambda text: None
    ) -> Findings | None:
        """What would fail trials of these specs; None if the process can't say it.

        `say` gets each step of it.
        """
        request = json.dumps({"preflight": [spec.to_json() for spec in specs]})
        with self._requesting:
            answer = None if self._is_closed else self._answer(request, say=say)
        return None if answer is None else Findings.from_json(answer["findings"])

    def close(self) -> None:
        """Ends the process; calls that wait for an answer return None."""
        self._is_closed = True
        process = self._process
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_EXIT_SECONDS)

    def _answer(
        self,
        request: str,
        *,
        say: Callable[[str], None] = lambda text: None,
        warns: bool = True,
    ) -> dict[str, Any] | None:
        """The answer, unless it is an error; starts the process if it was not started before."""
        self.start()
        process = self._process
        if process is None or process.stdin is None:
            return None
        try:
            process.stdin.write(request + "\n")
            process.stdin.flush()
            answer = _next_line(process)
            while answer is not None and "say" in answer:
                say(answer["say"])
                answer = _next_line(process)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self._end(f"the process that predicts has ended: {self._last_error_line()}")
        elif "error" in answer:
            if warns:
                self._warn_once(f"a configuration can't be predicted: {answer['error']}")
            return None
        return answer

    def _end(self, reason: str) -> None:
        if not self._is_closed:
            self._warn_once(f"{reason}. What is not known yet runs without a prediction.")
        self.close()

    def _warn_once(self, reason: str) -> None:
        if reason not in self._warned:
            self._warned.add(reason)
            self._warn(f"warning: {reason}")

    def _last_error_line(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


def _next_line(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    """The next object that the process writes, or None at its end; one that hangs is killed."""
    assert process.stdout is not None
    timeout = threading.Timer(ANSWER_SECONDS, process.kill)
    timeout.daemon = True
    timeout.start()
    try:
        line = process.stdout.readline()
    finally:
        timeout.cancel()
    answer: dict[str, Any] | None = json.loads(line) if line else None
    return answer
