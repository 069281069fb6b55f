"""`python -m orchestrator.score`: EmAcc of any model's predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.tasks import emacc
from trainables.tasks.finqa_files import read_gold, read_lines

_MOST_NAMED = 5  # ids in one message

GOLD_READERS: dict[str, Callable[[str | Path], dict[str, float | str]]] = {
    "finqa": read_gold,
}

_DESCRIPTION = """\
Score predictions by the exact-match rule of docs/emacc.md. Nothing is trained or loaded but the
two files."""
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
    options = _parser().parse_args(arguments)
    try:
        result = score_files(
            options.predictions,
            task=options.task,
            gold=options.gold,
            marker_required=options.marker_required,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(result) if options.json else _table(result))
    return 0


def score_files(
    predictions: str | Path, *, task: str, gold: str | Path, marker_required: bool = False
) -> dict[str, Any]:
    """The measures of a file of predictions; every gold record counts once.

    Keys: `trainables.tasks.emacc.rates`, count, count_numeric, half_width_95 (of em_acc, as a
    share), task, rule_version. Raises InputError with all that is wrong in the files.
    """
    if task not in GOLD_READERS:
        raise InputError(f"--task: no task named {task!r}.{did_you_mean(task, GOLD_READERS)}")
    answers = GOLD_READERS[task](gold)
    given = _read_predictions(predictions)
    _check_ids(given, answers, where=str(predictions), gold=str(gold))
    flags = [
        emacc.score(given[name], answer, marker_required=marker_required).flags()
        for name, answer in answers.items()
    ]
    rates = emacc.rates(flags)
    return {
        **rates,
        "count": len(flags),
        "count_numeric": sum(each["numeric"] for each in flags),
        "half_width_95": emacc.half_width_95(rates["em_acc"], len(flags)),
        "task": task,
        "rule_version": emacc.RULE_VERSION,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.score",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("predictions", metavar="PREDICTIONS", help="JSON lines, gzip or not")
    parser.add_argument("--task", required=True, help=f"one of: {', '.join(GOLD_READERS)}")
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
    rows = [
        (name, f"{value:8.2%}") for name, value in result.items() if name.startswith(("em_", "no_"))
    ]
    rows += [(name, f"{result[name]:8.2%}") for name in ("percent_scale_rate", "unparsed_rate")]
    lines = [f"{name:<20}{share}" for name, share in rows]
    lines[0] += f"  +- {100 * result['half_width_95']:.1f} points (95%)"
    head = f"{result['task']}: {count} questions, EmAcc rule version {result['rule_version']}"
    return "\n".join([head, *lines])


if __name__ == "__main__":
    sys.exit(main())
