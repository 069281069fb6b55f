"""Runs a command of a checkout and writes its CPU seconds by part of the report it builds.

    PYTHONPATH=CHECKOUT python benchmarks/cpu_by_part.py PARTS.json MODULE ARGUMENT...

Runs MODULE as `python -m` does. Every few milliseconds of CPU time the call stack is sampled, and
the time since the last sample is added to a part: `imports` while a module is being imported, else
the function that one of BUILDERS has called. It imports nothing of the project, so that it measures
any checkout.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

BUILDERS = ("main", "_report", "write_report", "_report_of")  # the innermost on the stack counts
SAMPLE_SECONDS = 0.002
IMPORTS, REST = "imports", "start and end"


class Sampler:
    """CPU seconds of this process by part, from the process's start."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._seen = 0.0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, lambda _, frame: self._sample(frame))
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)

    def stop(self) -> dict[str, float]:
        signal.setitimer(signal.ITIMER_PROF, 0)
        self._sample(None)
        return dict(self._seconds)

    def _sample(self, frame: FrameType | None) -> None:
        now = time.process_time()
        self._seconds[_part(frame)] += now - self._seen
        self._seen = now


def _part(frame: FrameType | None) -> str:
    called = REST
    inner: FrameType | None = None
    while frame is not None:
        if "importlib._bootstrap" in frame.f_code.co_filename:
            return IMPORTS
        if called == REST and inner is not None and frame.f_code.co_name in BUILDERS:
            called = inner.f_code.co_name
        inner, frame = frame, frame.f_back
    return called


def main() -> None:
    output, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    sys.path[0] = ""  # as with -m; this file's own folder holds modules of its checkout
    sampler = Sampler()
    sampler.start()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(output).write_text(json.dumps(sampler.stop()))


if __name__ == "__main__":
    main()
