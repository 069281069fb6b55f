"""A pytest plugin that reports the seconds of each directory and modules that take too long.

With `--module-seconds N` a run fails if the tests of one module, with their fixtures, take longer
than N seconds together; without it single modules are not reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pytest

_DEPTH = 3  # tests/orchestrator/runs is reported as a directory, and includes its subdirectories


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--module-seconds",
        type=float,
        metavar="N",
        help="fail if the tests of one module take longer than N seconds together",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the workers of xdist report to its controller
        config.pluginmanager.register(SuiteTimes(config.getoption("--module-seconds")))


class SuiteTimes:
    """Sums the durations of setups, calls and teardowns, and reports them at the end."""

    def __init__(self, limit_seconds: float | None) -> None:
        self._limit_seconds = limit_seconds
        self._seconds: dict[str, float] = defaultdict(float)  # by module
        self._tests: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        module = report.nodeid.partition("::")[0]
        self._seconds[module] += report.duration
        self._tests[module] += report.when == "setup"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._too_slow() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if len(self._seconds) > 1:
            terminalreporter.section("seconds by directory")
            for line in self._directory_lines():
                terminalreporter.line(line)
        for module, seconds in self._too_slow():
            terminalreporter.line(
                f"FAILED {module}: its tests took {seconds:.0f} s, and --module-seconds allows "
                f"{self._limit_seconds:g} s",
                red=True,
            )

    def _directory_lines(self) -> list[str]:
        seconds: dict[str, float] = defaultdict(float)
        tests: Counter[str] = Counter()
        for module, spent in self._seconds.items():
            seconds[_directory(module)] += spent
            tests[_directory(module)] += self._tests[module]
        return [
            f"{spent:8.1f} s  {tests[name]:5d} tests  {name}"
            for name, spent in _most_first(seconds)
        ]

    def _too_slow(self) -> list[tuple[str, float]]:
        limit = self._limit_seconds
        return [each for each in _most_first(self._seconds) if limit and each[1] > limit]


def _most_first(seconds: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda item: -item[1])


def _directory(module: str) -> str:
    return "/".join(PurePosixPath(module).parent.parts[:_DEPTH])
