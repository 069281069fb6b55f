"""python -m orchestrator.ask RUN_DIR: the best finished configuration for a GPU and an accuracy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from orchestrator.analysis.best_within import AIMS, Requirements, as_json, best_within
from orchestrator.cli import add_run_argument
from orchestrator.config.settings import parsed_size, size
from orchestrator.reporting.answer import answer_lines, answer_report
from orchestrator.runs.results import open_run, read_trials
from trainables.command_line import BAD_INPUT, DONE, FAILED, new_parser, run_command
from trainables.errors import InputError
from trainables.resources.gpu_overhead import GPU_OVERHEAD_BYTES

_DESCRIPTION = """\
The best finished trial of a sweep that fits a GPU and is accurate enough: its numbers, the trials
that it ties with, and the lines of Python that load it. Reads the trial folders only, also while
the sweep runs; loads no model."""
_EPILOG = f"""\
EmAcc is that of the whole selection split, which every finished trial was judged on. The memory of
a trial is the most that its tensors took, in training or evaluation, and what CUDA takes beside
them: measured where the trial had a GPU alone, else {GPU_OVERHEAD_BYTES // 2**20} MiB are assumed.
Two trials tie if their answers to the same questions don't differ significantly (exact McNemar,
5%). FLOPs are known of trials that had a prediction (docs/cost.md).

examples:
  python -m orchestrator.ask runs/NAME --gpu-memory 12GiB
  python -m orchestrator.ask runs/NAME --gpu-memory 12GiB --min-em-acc 0.6 --minimize train_flops
  python -m orchestrator.ask runs/NAME --min-em-acc 0.6 --minimize memory --json

exit codes: {DONE} answered; {FAILED} no finished trial qualifies (what comes closest is
printed); {BAD_INPUT} bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Writes nothing."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _ask(options), prefix="")


def _ask(options: argparse.Namespace) -> int:
    question = _question(options)
    run = open_run(options.run_dir)
    results = read_trials(run)
    found = best_within(results, question)
    if options.json:
        print(json.dumps({**as_json(found), "load": answer_lines(found.best)}, indent=2))
    else:
        answer_report(run, results, found).print()
        print("\n".join(["", *answer_lines(found.best)]) if found.best else "")
    return DONE if found.best else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.ask", description=_DESCRIPTION, epilog=_EPILOG)
    add_run_argument(parser)
    parser.add_argument("--gpu-memory", metavar="SIZE", help="what it must fit in, as 12GiB")
    parser.add_argument("--min-em-acc", metavar="SHARE", help="EmAcc that it must have, as 0.6")
    parser.add_argument(
        "--minimize",
        metavar="WHAT",
        default="em_error",
        help=f"one of {', '.join(AIMS)}; by default em_error, the share of wrong answers",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    return parser


def _question(options: argparse.Namespace) -> Requirements:
    """Raises InputError with all that is wrong in the options."""
    faults = []
    aim = next((name for name in AIMS if name == options.minimize), None)
    if aim is None:
        faults.append(f"--minimize: got {options.minimize!r}; needs one of {', '.join(AIMS)}.")
    if options.gpu_memory is not None and (fault := size(options.gpu_memory)):
        faults.append(f"--gpu-memory: {fault}")
    share = _share(options.min_em_acc)
    if options.min_em_acc is not None and share is None:
        given = options.min_em_acc
        faults.append(f"--min-em-acc: got {given!r}; needs a share from 0 to 1, as 0.6 for 60%.")
    if faults or aim is None:
        raise InputError(faults)
    memory = None if options.gpu_memory is None else parsed_size(options.gpu_memory)
    return Requirements(aim, gpu_memory=memory, min_em_acc=share)


def _share(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


if __name__ == "__main__":
    sys.exit(main())
