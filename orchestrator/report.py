"""python -m orchestrator.report RUN_DIR: what a sweep found, on the terminal and in report.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.reporting.builder import build_report, write_report
from orchestrator.runs.results import open_run
from trainables.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report and writes its files; 2 if RUN_DIR is not a run folder."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.report", description=__doc__)
    parser.add_argument("run_dir", metavar="RUN_DIR", help="a sweep: runs/NAME, or its URL")
    options = parser.parse_args(arguments)
    try:
        run = open_run(options.run_dir)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        report = write_report(run)
    except OSError as error:
        print(f"warning: {error} The report is only printed.", file=sys.stderr)
        report = build_report(run)
    report.print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
