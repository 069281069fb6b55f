"""`python -m orchestrator.score`: EmAcc of any model's predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError, did_you_mean
from trainables.tasks import exact_match
from trainables.tasks.records import read_lines

_MOST_NAMED = 5  # ids in one message

Gold = Any  # what a rule's `read` gives for a question and its `score` takes
Flags = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """How a task's predictions are scored; `score` takes prediction, gold, marker_required."""

    version: str
    read: Callable[[str | Path], Mapping[str, Gold]]
    score: Callable[[str | None, Gold, bool], Flags]
    rates: Callable[[Sequence[Flags]], dict[str, float]]


def _finqa() -> Rule:
    from trainables.tasks.finqa.files import read_gold

    def score(prediction: str | None, gold: Gold, marker_required: bool) -> Flags:
        return exact_match.score(prediction, gold, marker_required=marker_required).flags()

    return Rule(exact_match.RULE_VERSION, read_gold, score, exact_match.rates)


def _tatqa() -> Rule:
    from trainables.tasks.tatqa import scoring
    from trainables.tasks.tatqa.files import gold_of, read_examples

    def read(path: str | Path) -> Mapping[str, Gold]:
        return {example.id: gold_of(example) for example in read_examples(path)}

    def score(prediction: str | None, gold: Gold, marker_required: bool) -> Flags:
        span = exact_match.prediction_span(prediction or "", marker_required=marker_required)
        answer, is_computed = gold
        found = scoring.score_text(span or "", answer, is_computed=is_computed)
        return {**found.flags(), "no_marker": span is None}

    def rates(scores: Sequence[Flags]) -> dict[str, float]:
        no_marker = sum(each["no_marker"] for each in scores) / max(1, len(scores))
        return {**scoring.rates(scores), "no_marker_rate": no_marker}

    return Rule(scoring.RULE_VERSION, read, score, rates)


RULES: dict[str, Callable[[], Rule]] = {"finqa": _finqa, "tatqa": _tatqa}

_DESCRIPTION = """\
Score predictions by the task's exact-match rule (docs/emacc.md, docs/tatqa.md). Nothing is trained
or loaded but the two files."""
_EPILOG = """\
PREDICTIONS has one JSON object on a line, one line for every gold record:

  {"id": "ETR/2016/page_23.pdf-2", "prediction": "94"}
  {"id": "INTC/2015/page_41.pdf-4", "prediction": "8.1 of 56.0 are leased.\\nAnswer: 14.46%"}
  {"id": "FIS/2010/page_70.pdf-2", "prediction": null}

What follows the last "Answer:" counts, or the first line where there is none. A prediction that is
null, empty or without a number is wrong. The ids must be those of the gold file.

example:
  python -m orchestrator.score --task finqa predictions.jsonl --gold data/finqa/test.json

exit codes: 0 scored; 2 bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Writes nothing."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _score(options), prefix="")


def _score(options: argparse.Namespace) -> int:
    result = score_files(
        options.predictions,
        task=options.task,
        gold=options.gold,
        marker_required=options.marker_required,
    )
    print(json.dumps(result) if options.json else _table(result))
    return DONE


def score_files(
    predictions: str | Path, *, task: str, gold: str | Path, marker_required: bool = False
) -> dict[str, Any]:
    """The measures of a file of predictions; every gold record counts once.

    Keys: the task's own `rates`, count, count_numeric, half_width_95 (of em_acc, as a
    share), task, rule_version. Raises InputError with all that is wrong in the files.
    """
    if task not in RULES:
        raise InputError(f"--task: no task named {task!r}.{did_you_mean(task, RULES)}")
    rule = RULES[task]()
    answers = rule.read(gold)
    given = _read_predictions(predictions)
    _check_ids(given, answers, where=str(predictions), gold=str(gold))
    flags = [rule.score(given[name], answer, marker_required) for name, answer in answers.items()]
    rates = rule.rates(flags)
    return {
        **rates,
        "count": len(flags),
        "count_numeric": sum(bool(each["numeric"]) for each in flags),
        "half_width_95": exact_match.half_width_95(rates["em_acc"], len(flags)),
        "task": task,
        "rule_version": rule.version,
    }


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.score", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("predictions", metavar="PREDICTIONS", help="JSON lines, gzip or not")
    parser.add_argument("--task", required=True, help=f"one of: {', '.join(RULES)}")
    parser.add_argument(
        "--gold",
        required=True,
        metavar="FILE",
        help="the task's records: an official list or flat JSON lines, gzip or not",
    )
    parser.add_argument(
        "--marker-required",
        action="store_true",
        help='a prediction without "Answer:" is wrong, and counted in no_marker_rate',
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _read_predictions(path: str | Path) -> dict[str, str | None]:
    predictions: dict[str, str | None] = {}
    faults: list[str] = []
    for line, value in read_lines(path):
        found = _line_faults(value, where=f"{path}:{line}")
        if not found and value["id"] in predictions:
            found = [f"{path}:{line}: a second prediction for the id {value['id']!r}."]
        faults += found
        if not found:
            predictions[value["id"]] = _text(value.get("prediction"))
    if faults:
        raise InputError(_few(faults))
    return predictions


def _few(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _MOST_NAMED
    return [*faults[:_MOST_NAMED], *([f"and {more} more faults."] if more > 0 else [])]


def _line_faults(value: Any, *, where: str) -> list[str]:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return [f'{where}: not of the form {{"id": "...", "prediction": "..."}}.']
    if isinstance(value.get("prediction"), bool | list | dict):
        return [f"{where}: the prediction of {value['id']!r} is not a string, a number or null."]
    return []


def _text(prediction: str | float | None) -> str | None:
    return prediction if prediction is None or isinstance(prediction, str) else repr(prediction)


def _check_ids(
    given: Mapping[str, str | None], answers: Mapping[str, Any], *, where: str, gold: str
) -> None:
    unknown = [name for name in given if name not in answers]
    missing = [name for name in answers if name not in given]
    faults = []
    if unknown:
        faults.append(f"{where}: {_ids(unknown)} not in {gold}; remove them.")
    if missing:
        faults.append(
            f"{where}: no line for {_ids(missing)} in {gold}; every question counts once:"
            ' add lines with "prediction": null, which is wrong.'
        )
    if faults:
        raise InputError(faults)


def _ids(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED])
    rest = ", ..." if len(names) > _MOST_NAMED else ""
    return f"{len(names)} {'id' if len(names) == 1 else 'ids'} ({shown}{rest})"


def _table(result: Mapping[str, Any]) -> str:
    """Percent, a measure to a line; the half-width tells which differences are a tie."""
    count = result["count"]
    others = ("count", "count_numeric", "half_width_95", "task", "rule_version")
    rows = [(name, f"{value:8.2%}") for name, value in result.items() if name not in others]
    lines = [f"{name:<20}{share}" for name, share in rows]
    lines[0] += f"  +- {100 * result['half_width_95']:.1f} points (95%)"
    head = f"{result['task']}: {count} questions, EmAcc rule version {result['rule_version']}"
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
