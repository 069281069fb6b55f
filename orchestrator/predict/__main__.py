"""python -m orchestrator.predict TRIAL_OR_MODEL: answers of base, LoRA and full models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from orchestrator.predict.comparison import Answered, Comparison, json_lines, report
from orchestrator.predict.models import ModelUnderTest, asked_models, is_trial_reference
from orchestrator.predict.questions import (
    DEFAULT_TASK,
    chosen_questions,
    option_faults,
    plain_spec,
    task_of,
)
from orchestrator.predict.worker_process import AnsweringFailedError, ask
from orchestrator.runs.predictions import read_predictions
from orchestrator.runs.trial_result import Split
from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError
from trainables.spec.checks import one_of
from trainables.spec.quantization import QUANTIZATIONS
from trainables.spec.trial_spec import TrialSpec
from trainables.standard_streams import shows_everything
from trainables.tasks.registry import task_names

_DESCRIPTION = """\
Ask models the questions of a task: the prompt as the model reads it, the gold, and the answers of
the base, LoRA and fully fine-tuned models beside each other, right or wrong by the task's rule
(docs/emacc.md, docs/tatqa.md), with what the rule read. Trains nothing and writes nothing."""
_EPILOG = """\
A trial's spec says its base, task, data, prompt, quantization and dtype, and its base is shown
beside it. It is asked as the sweep asked it, in the same batches, so its answers are those in its
predictions.jsonl; where one is not (another device, other versions), that is said. Only finished
trials can be asked. A batch of the sweep is asked for each question, so one question takes as
long as a batch; plain models alone are asked nothing else. The selection split is what every
finished trial was judged on.

A plain model is asked as the first trial's base is, or, where no trial is named, as SPACE.yaml says
(task, data, execution, and prompt, target and sequence_length at the top of its space); without
a file by the task's downloaded data (python -m trainables.tasks.download finqa).

examples:
  python -m orchestrator.predict runs/quickstart                        # its best trial
  python -m orchestrator.predict runs/quickstart/trials/4be0ff72a10c --sample 17
  python -m orchestrator.predict runs/quickstart/trials/4be0ff72a10c --limit 50 \\
      --compare runs/quickstart/trials/90d2c41b66aa runs/full
  python -m orchestrator.predict meta-llama/Llama-3.2-1B-Instruct --task finqa \\
      --split report --sample ETR/2016/page_23.pdf-2
  python -m orchestrator.predict base_models/large --space search_spaces/quickstart.yaml \\
      --limit 20 --json > answers.jsonl

exit codes: 0 answered; 1 a model could not be asked (it did not fit, say); 2 bad input;
130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (0, 1, 2 or 130, see --help)."""
    return run_command(
        lambda: _predict(_parser().parse_args(arguments)), failures={AnsweringFailedError: ""}
    )


def _predict(options: argparse.Namespace) -> int:
    notify = _progress()
    try:
        found = _compared(options, notify)
    finally:
        notify("")  # clears the line, also before an error is printed
    if options.json:
        for line in json_lines(found):
            print(json.dumps(line, ensure_ascii=not shows_everything(sys.stdout)))
    else:
        report(found, whole_prompt=options.whole_prompt).print()
    return DONE


def _compared(options: argparse.Namespace, notify: Callable[[str], None]) -> Comparison:
    """Asks the models. Raises InputError with all faults of the options before it loads one."""
    models, spec = _models(options)
    task = task_of(spec)
    examples = task.load(options.split)
    questions = chosen_questions(examples, options.sample, options.limit, split=options.split)
    answers = ask(models, split=options.split, questions=questions, notify=notify)
    answered = [
        Answered(model, given, _noted(model, options.split))
        for model, given in zip(models, answers, strict=True)
    ]
    chosen = [(place, examples[place]) for place in questions]
    return Comparison(task, options.split, chosen, answered)


def _models(options: argparse.Namespace) -> tuple[list[ModelUnderTest], TrialSpec]:
    """The models, and the spec whose task and data give the questions."""
    split, task = options.split, options.task
    faults = option_faults(split=split, samples=options.sample, limit=options.limit, task=task)
    wrong = one_of(*QUANTIZATIONS)(options.quantization)
    faults += [f"--quantization: {wrong}"] if wrong else []
    names = [options.target, *options.compare]
    is_of_trials = any(map(is_trial_reference, names))
    if is_of_trials and (options.space or options.set):
        faults.append("--space, --set: a trial has its own task and data; leave them out.")
    models: list[ModelUnderTest] = []
    try:
        plain = None if is_of_trials or faults else _plain_spec(options)
        if plain is not None or is_of_trials:
            models = asked_models(
                names,
                quantization=options.quantization,
                plain_spec=plain,
                with_bases=not options.no_base,
            )
    except InputError as error:
        faults += error.messages
    trained = next((each.spec for each in models if not each.is_plain), None)
    spec = trained or (models[0].spec if models else None)
    if spec is not None and task not in (None, spec.task):
        faults.append(f"--task: got {task}, and what is asked was made for {spec.task}.")
    if faults or spec is None:
        raise InputError(faults)
    return models, spec


def _plain_spec(options: argparse.Namespace) -> TrialSpec:
    return plain_spec(
        options.target,
        space=options.space,
        task=options.task,
        overrides=options.set,
        quantization=options.quantization,
        split=options.split,
    )


def _noted(model: ModelUnderTest, split: str) -> dict[str, dict[str, object]]:
    """The rows of a trial's predictions by question id; empty for the train split."""
    kept: tuple[Split, ...] = ("selection", "report")
    for name in kept:
        if name == split and model.folder is not None:
            rows, _ = read_predictions(model.folder, name)
            return {str(row["id"]): dict(row) for row in rows}
    return {}


def _progress() -> Callable[[str], None]:
    """Prints progress to stderr: one line that is overwritten on a terminal, else a line each."""
    is_terminal = sys.stderr.isatty()
    last = [""]

    def notify(text: str) -> None:
        if is_terminal:
            print(f"\r{text[:100].ljust(len(last[0][:100]))}", end="", file=sys.stderr, flush=True)
            if not text and last[0]:
                print("\r", end="", file=sys.stderr, flush=True)
        elif text and not text.endswith("answered"):
            print(text, file=sys.stderr, flush=True)
        last[0] = text

    return notify


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.predict", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument(
        "target",
        metavar="TRIAL_OR_MODEL",
        help="a finished trial (RUN_DIR/trials/ID), a run (RUN_DIR: its best finished trial), "
        "a model's folder or a hub id",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        action="extend",
        default=[],
        metavar="OTHER",
        help="more of the same, asked the same questions",
    )
    others = [name for name in task_names() if name != DEFAULT_TASK]
    parser.add_argument(
        "--task",
        help=f"{DEFAULT_TASK} (the default) or {', '.join(others)}; a trial has its own",
    )
    parser.add_argument(
        "--sample",
        action="append",
        default=[],
        metavar="INDEX_OR_ID",
        help="a question: its place in the split, from 0, or its id; may be given several times",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N questions (default: 1)")
    parser.add_argument(
        "--split", default="selection", help="selection (the default), report or train"
    )
    parser.add_argument("--no-base", action="store_true", help="leave the bases of trials out")
    parser.add_argument(
        "--space", metavar="SPACE.yaml", help="a sweep's file that says how plain models are asked"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="change a value of that, as data.selection=FILE; c is YAML",
    )
    parser.add_argument(
        "--quantization",
        default="none",
        help=f"of plain models: one of {', '.join(QUANTIZATIONS)} (default: none)",
    )
    parser.add_argument("--whole-prompt", action="store_true", help="show prompts unshortened")
    parser.add_argument(
        "--json", action="store_true", help="a JSON object a line: each question, then a summary"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
