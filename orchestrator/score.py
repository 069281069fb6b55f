"""`python -m orchestrator.score`: the metrics of a task on any model's predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.significance import half_width_95, split_interval
from orchestrator.formatting import counted, format_metric
from orchestrator.runs.predictions import Predictions
from trainables.command_line import DONE, new_parser, run_command
from trainables.errors import InputError, did_you_mean
from trainables.spec.metric import MetricSpec
from trainables.tasks.records import read_lines
from trainables.tasks.registry import find_task, is_task, task_names
from trainables.tasks.task import Task

_MOST_NAMED = 5  # ids in one message
_HALF_WIDTH, _BOUNDS = "half_width_95", ("low_95", "high_95")

_DESCRIPTION = """\
Score predictions by the task's own rule (docs/emacc.md, docs/tatqa.md). Nothing is trained or
loaded but the two files."""
_EPILOG = """\
PREDICTIONS has one JSON object on a line, one line for every gold record:

  {"id": "ETR/2016/page_23.pdf-2", "prediction": "94"}
  {"id": "INTC/2015/page_41.pdf-4", "prediction": "8.1 of 56.0 are leased.\\nAnswer: 14.46%"}
  {"id": "FIS/2010/page_70.pdf-2", "prediction": null}

What follows the last "Answer:" counts, or the first line without one. A prediction that is null,
empty or not to be read is wrong. The ids must be those of the gold file.

example:
  python -m orchestrator.score --task finqa predictions.jsonl --gold data/finqa/test.json

exit codes: 0 scored; 2 bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Writes nothing."""
    return run_command(lambda: _score(_parser().parse_args(arguments)), prefix="")


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

    Keys: what the task aggregates, count, count_X for each metric of the questions that are X,
    half_width_95 (of the primary metric, if it is a share of questions) or low_95 and high_95 (of
    another that is kept for each question), task, rule_version. Raises InputError with all that is
    wrong in the files.
    """
    if not is_task(task):
        raise InputError(f"--task: no task named {task!r}.{did_you_mean(task, task_names())}")
    rule = find_task(task)
    questions = {example.id: example for example in rule.read_gold(gold)}
    given = _read_predictions(predictions)
    _check_ids(given, questions, where=str(predictions), gold=str(gold))
    scores = [
        rule.score_prediction(example, given[name], marker_required=marker_required)
        for name, example in questions.items()
    ]
    measures = rule.aggregate(scores)
    return {
        **measures,
        "count": len(scores),
        **_counts(rule, scores),
        **_interval(rule, measures, scores),
        "task": task,
        "rule_version": rule.rule_version,
    }


def _counts(rule: type[Task], scores: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """How many questions the metrics of some questions only are of."""
    flags = dict.fromkeys(metric.among for metric in rule.metrics.specs if metric.among)
    return {f"count_{flag}": sum(bool(score[flag]) for score in scores) for flag in flags}


def _interval(
    rule: type[Task], measures: Mapping[str, float], scores: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    primary = rule.metrics.primary
    if primary.is_share_of_questions:
        return {_HALF_WIDTH: half_width_95(measures[primary.name], len(scores))}
    rows = [{"id": str(place), **score} for place, score in enumerate(scores)]
    bounds = split_interval(Predictions.of_rows(rows), primary)
    return {} if bounds is None else dict(zip(_BOUNDS, bounds, strict=True))


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("orchestrator.score", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("predictions", metavar="PREDICTIONS", help="JSON lines, gzip or not")
    parser.add_argument("--task", required=True, help=f"one of: {', '.join(task_names())}")
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
    """A measure on a line; the half-width tells which differences are a tie."""
    metrics = find_task(result["task"]).metrics
    counts = {"count", *(f"count_{metric.among}" for metric in metrics.specs)}
    lines = [
        f"{name:<20}{_value_text(metrics.find(name) or MetricSpec(name, name), value):>8}"
        for name, value in result.items()
        if name not in {*counts, _HALF_WIDTH, *_BOUNDS, "task", "rule_version"}
    ]
    if _HALF_WIDTH in result:
        lines[0] += f"  +- {100 * result[_HALF_WIDTH]:.1f} points (95%)"
    if _BOUNDS[0] in result:
        low, high = (_value_text(metrics.primary, result[name]) for name in _BOUNDS)
        lines[0] += f"  ({low} to {high}, 95%)"
    rule = f"{metrics.primary.title} rule version {result['rule_version']}"
    return "\n".join([f"{result['task']}: {counted(result['count'], 'question')}, {rule}", *lines])


def _value_text(metric: MetricSpec, value: float) -> str:
    """Shares in percent with two decimals; a measure that is named a rate is one."""
    is_share = metric.is_percentage or metric.name.endswith("_rate")
    return f"{value:.2%}" if is_share else format_metric(metric, value)


if __name__ == "__main__":
    sys.exit(main())
