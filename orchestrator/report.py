"""python -m orchestrator.report RUN_DIR: what a sweep found, on the terminal and in report.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.cli import add_run_argument
from orchestrator.reporting.builder import build_report, write_report
from orchestrator.reporting.flip_report import write_flip_report
from orchestrator.runs.results import open_run
from trainables.command_line import DONE, new_parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report and writes its files; 2 if RUN_DIR is not a run folder."""
    parser = new_parser("orchestrator.report", description=str(__doc__))
    add_run_argument(parser)
    parser.add_argument(
        "--flips",
        "--by",
        metavar="FACTOR",
        help="only the study of flips: which questions trials that differ in this knob alone lose "
        "and gain, by slice",
    )
    return run_command(lambda: _command(parser.parse_args(arguments)), prefix="")


def _command(options: argparse.Namespace) -> int:
    if options.flips is None:
        return _report(options.run_dir)
    write_flip_report(open_run(options.run_dir), options.flips).print()
    return DONE


def _report(run_dir: str) -> int:
    run = open_run(run_dir)
    try:
        report = write_report(run)
    except OSError as error:
        print(f"warning: {error} The report is only printed.", file=sys.stderr)
        report = build_report(run)
    report.print()
    return DONE


if __name__ == "__main__":
    sys.exit(main())
