"""python -m orchestrator.decode RUN_OR_TRIAL: decoding strategies on finished trials."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.decode.grid import USUAL, decoded, name_of, strategies
from orchestrator.decode.table import report
from orchestrator.decode.tried import FORMATS, Tried, is_of, key_of, read_tried, tried, write_tried
from orchestrator.formatting import counted, format_duration
from orchestrator.predict.models import ModelUnderTest, asked_models, is_run, is_trial_reference
from orchestrator.predict.questions import option_faults, task_of
from orchestrator.predict.worker_process import AnsweringFailedError, answers_of
from orchestrator.runs.results import open_run, read_metrics, read_trials
from orchestrator.runs.trial_result import ranked
from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError
from trainables.spec.decoding import Decoding
from trainables.storage.object_store import is_url
from trainables.storage.working_copy import TRIALS
from trainables.tasks.task import Task

_DESCRIPTION = """\
Try decoding strategies on trials that have finished: greedy, samples (with votes), beams. Nothing
is trained and nothing in the run changes. Each strategy answers the same questions; the table says
what that gave (with its 95% interval), and what it cost: FLOPs and seconds per answer
(docs/decoding.md)."""
_EPILOG = f"""\
--grid is YAML, as `decoding` is in a search space: a list is a choice, a one-key mapping in it has
the knobs of that strategy, and a list there is a choice again. Every combination is tried. Without
--grid:

  {USUAL}

strategies and what they read (defaults in brackets):
  greedy
  sample       temperature [1], top_k [0: all], top_p [1: all], votes [1], decoding_seed [0]
  beam         beams [4], length_penalty [1]
  beam_sample  all of these; each question is asked alone, which is slow

The same seed gives the same answers. A sweep over strategies, each a trial of its own, has
`decoding: ...` in its space. With --output the command goes on where it was: what the file holds is
not asked again.

examples:
  python -m orchestrator.decode runs/quickstart                     # its best trial, the usual grid
  python -m orchestrator.decode runs/quickstart --best 3 --output decoding.csv
  python -m orchestrator.decode runs/quickstart/trials/4be0ff72a10c --limit 100 \\
      --grid '[greedy, {{sample: {{temperature: [0.3, 0.7, 1.0], votes: [1, 9]}}}}]'

exit codes: 0 answered; 1 a model could not be asked (it did not fit, say); 2 bad input;
130 interrupted."""


@dataclass(frozen=True)
class _Attempt:
    """One strategy on one trial."""

    model: ModelUnderTest
    strategy: dict[str, Any]
    key: dict[str, Any]

    @property
    def work(self) -> int:
        """What it takes, in units of one greedy pass."""
        decoding = Decoding.of(self.model.spec.knobs)
        return decoding.beams * decoding.votes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""
    return run_command(
        lambda: _decode(_parser().parse_args(arguments)),
        failures={AnsweringFailedError: ""},
        next_step=lambda: "With --output FILE the same command goes on where it was.",
    )


def _decode(options: argparse.Namespace) -> int:
    grid, output = _checked(options)
    models = asked_models(list(_names(options.targets, options.best)), with_bases=False)
    task = task_of(models[0].spec)
    questions = list(range(len(task.load(options.split))))[: options.limit]
    attempts = [
        _Attempt(
            replace(model, spec=decoded(model.spec, strategy)),
            strategy,
            key_of(model, strategy, split=options.split, questions=len(questions)),
        )
        for model in models
        for strategy in grid
    ]
    kept = read_tried(output) if output else []
    left = [each for each in attempts if not any(is_of(row, each.key) for row in kept)]
    if len(left) < len(attempts):
        _say(f"{len(attempts) - len(left)} of {len(attempts)} are in {output} already.")
    rows = list(kept)
    for row in _tried(left, task, options.split, questions):
        rows.append(row)
        if output:
            write_tried(output, rows)
    shown = [row for each in attempts for row in rows if is_of(row, each.key)]
    report(shown, task.used_metrics.primary).print()
    return DONE


def _checked(options: argparse.Namespace) -> tuple[list[dict[str, Any]], Path | None]:
    """The strategies and the output; raises InputError with all faults of the options."""
    faults = option_faults(split=options.split, samples=(), limit=options.limit, task=None)
    if options.best < 1:
        faults.append(f"--best: got {options.best}; needs a whole number >= 1.")
    output = Path(options.output) if options.output else None
    if output and output.suffix not in FORMATS:
        faults.append(f"--output: got {output}; needs a name in {' or '.join(FORMATS)}.")
    for name in options.targets:
        if not is_trial_reference(name):
            faults.append(f"{name}: is neither a run nor a trial of one.")
    grid: list[dict[str, Any]] = []
    try:
        grid = strategies(options.grid)
    except InputError as error:
        faults += error.messages
    if faults:
        raise InputError(faults)
    return grid, output


def _names(targets: Sequence[str], best: int) -> Iterator[str]:
    """The targets, with the best trials in the place of a run."""
    for target in targets:
        if best == 1 or not _is_run(target):
            yield target
            continue
        run = open_run(target)
        found = ranked(read_trials(run), read_metrics(run).ranking)[:best]
        yield from [str(result.folder.path) for result in found] or [target]


def _is_run(target: str) -> bool:
    return is_run(Path(target)) or (is_url(target) and f"/{TRIALS}/" not in target)


def _tried(
    attempts: Sequence[_Attempt], task: Task, split: str, questions: Sequence[int]
) -> Iterator[Tried]:
    """Asks what is left, one attempt after another, and tells how far it is."""
    if not attempts:
        return
    seconds, done, whole = 0.0, 0, sum(each.work for each in attempts)
    is_whole = len(questions) == len(task.load(split))
    answers = answers_of(
        [each.model for each in attempts],
        split=split,
        questions=questions,
        notify=_say_without_batches,
        as_a_sweep=is_whole,
    )
    for number, (place, given) in enumerate(answers, start=1):
        attempt = attempts[place]
        row = tried(attempt.key, attempt.model, task, given)
        done, seconds = done + attempt.work, seconds + given.seconds
        left = seconds / done * (whole - done)
        text = f"{number} of {counted(len(attempts), 'strategy', 'strategies')} answered:"
        left_text = f"; about {format_duration(left)} left" if done < whole else ""
        _say(f"{text} {name_of(attempt.strategy)}{left_text}")
        yield row


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_without_batches(text: str) -> None:
    if text.startswith("loading"):
        _say(text)


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.decode", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="RUN_OR_TRIAL",
        help="a run (RUN_DIR: its best finished trials), or a finished trial (RUN_DIR/trials/ID)",
    )
    parser.add_argument("--grid", default=USUAL, help="strategies: YAML, or a file of it (.yaml)")
    parser.add_argument(
        "--best", type=int, default=1, metavar="N", help="so many trials of a run (default: 1)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N questions (default: all)"
    )
    parser.add_argument(
        "--split", default="selection", help="selection (the default), report or train"
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write what was measured here (.csv or .json), and go on from it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
