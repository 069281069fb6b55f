"""python -m orchestrator.ask RUN_DIR: the best finished configuration for a GPU and a score."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence

from orchestrator.analysis.best_within import Requirements, aims, as_json, best_within
from orchestrator.cli import add_run_argument
from orchestrator.config.settings import parsed_size, size
from orchestrator.reporting.answer import answer_lines, answer_report
from orchestrator.runs.results import closed, open_run, read_config, read_metrics, read_trials
from orchestrator.runs.sweep_metrics import task_fault
from trainables.command_line import BAD_INPUT, DONE, FAILED, new_parser, run_command
from trainables.errors import InputError
from trainables.resources.gpu_overhead import GPU_OVERHEAD_BYTES
from trainables.spec.metric import MetricSpec
from trainables.storage.run_folder import RunFolder

_ALIAS, _ALIAS_METRIC = "--min-em-acc", "em_acc"  # an older name of --reach, for this metric only
_DESCRIPTION = """\
The best finished trial of a sweep that fits a GPU and is good enough: its numbers, the trials that
it ties with, and the lines of Python that load it. Reads the trial folders only, also while the
sweep runs; loads no model."""
_EPILOG = f"""\
The metric is the one by which the sweep's task ranks trials, on the whole selection split, on which
every finished trial was judged. The memory of a trial is the most that its tensors took, in
training or evaluation, and what CUDA takes beside them: measured if the trial had a GPU alone, else
{GPU_OVERHEAD_BYTES // 2**20} MiB are assumed. Two trials tie if their answers to the same questions
don't differ significantly (5%, adjusted for the number of trials that qualify; exact McNemar if the
metric is a share of questions, a paired bootstrap if it is of a split as a whole as F1 is, else
paired t). FLOPs are known of trials that had a prediction (docs/cost.md).

examples:
  python -m orchestrator.ask runs/NAME --gpu-memory 12GiB
  python -m orchestrator.ask runs/NAME --gpu-memory 12GiB --reach 0.6 --minimize train_flops
  python -m orchestrator.ask runs/NAME --reach 0.6 --minimize memory --json

exit codes: {DONE} answered; {FAILED} no finished trial qualifies (what comes closest is
printed); {BAD_INPUT} bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Writes nothing."""
    return run_command(lambda: _ask(_parser().parse_args(arguments)), prefix="")


def _ask(options: argparse.Namespace) -> int:
    run = open_run(options.run_dir)
    metric = _metric(run)
    question = _question(options, metric)
    results = read_trials(run)
    of_trials = (text for item in results for text in item.warnings)
    for text in (*read_config(run)[1], *closed(run), *of_trials):
        print(f"warning: {text}", file=sys.stderr)
    found = best_within(results, question, metric=metric)
    if options.json:
        print(json.dumps({**as_json(found), "load": answer_lines(found.best)}, indent=2))
    else:
        answer_report(run, results, found).print()
        print("\n".join(["", *answer_lines(found.best)]) if found.best else "")
    return DONE if found.best else FAILED


def _metric(run: RunFolder) -> MetricSpec:
    """The primary metric of the run's task. Raises InputError for an unknown task, of which nobody
    knows which trials are better."""
    config, _ = read_config(run)
    if "task" in config and (fault := task_fault(config)):
        raise InputError(f"{run.sweep_file}: {fault}")
    return read_metrics(run).primary


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.ask", description=_DESCRIPTION, epilog=_EPILOG)
    add_run_argument(parser)
    parser.add_argument("--gpu-memory", metavar="SIZE", help="what it must fit in, as 12GiB")
    parser.add_argument(
        "--reach",
        metavar="VALUE",
        help="the value of the metric that it must reach, as 0.6: at least, or at most if less of"
        " it is better",
    )
    parser.add_argument(
        _ALIAS,
        dest="alias",
        metavar="SHARE",
        help=f"the same as --reach, for tasks that are ranked by {_ALIAS_METRIC}",
    )
    parser.add_argument(
        "--minimize",
        metavar="WHAT",
        help="memory, train_flops, or by default the error of the metric (of a share of right"
        " answers, the share of wrong ones)",
    )
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    return parser


def _question(options: argparse.Namespace, metric: MetricSpec) -> Requirements:
    """Raises InputError with all that is wrong in the options."""
    faults = []
    allowed = aims(metric)
    if options.minimize not in (None, *allowed):
        faults.append(f"--minimize: got {options.minimize!r}; needs one of {', '.join(allowed)}.")
    if options.gpu_memory is not None and (fault := size(options.gpu_memory)):
        faults.append(f"--gpu-memory: {fault}")
    faults += _reach_faults(options, metric)
    if faults:
        raise InputError(faults)
    memory = None if options.gpu_memory is None else parsed_size(options.gpu_memory)
    given = options.reach if options.alias is None else options.alias
    reach = None if given is None else float(given)
    return Requirements(options.minimize, gpu_memory=memory, reach=reach)


def _reach_faults(options: argparse.Namespace, metric: MetricSpec) -> list[str]:
    if options.reach is not None and options.alias is not None:
        return [f"{_ALIAS}: given with --reach; give one of them."]
    if options.alias is not None and metric.name != _ALIAS_METRIC:
        return [f"{_ALIAS}: this sweep is ranked by {metric.name}; use --reach."]
    name, given = "--reach", options.reach
    if options.alias is not None:
        name, given = _ALIAS, options.alias
    if given is None or _is_value(given, metric):
        return []
    share = "a share from 0 to 1, as 0.6 for 60%" if metric.is_share_of_questions else "a number"
    return [f"{name}: got {given!r}; needs {share}."]


def _is_value(text: str, metric: MetricSpec) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return 0 <= value <= 1 if metric.is_share_of_questions else math.isfinite(value)


if __name__ == "__main__":
    sys.exit(main())
