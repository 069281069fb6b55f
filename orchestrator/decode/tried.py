"""Tried: one strategy on one trial, as it was measured, and the file of them by which the command
goes on where it was."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.significance import split_interval, wilson
from orchestrator.predict.models import ModelUnderTest
from orchestrator.predict.worker_process import ModelAnswers
from orchestrator.runs.predictions import Predictions
from trainables.errors import InputError
from trainables.resources.flops import rates_of, total_flops
from trainables.spec.metric import MetricSpec
from trainables.spec.rows.decoding_knobs import DECODING_ROWS
from trainables.storage.atomic_files import write_bytes
from trainables.tasks.task import Task

Tried = Mapping[str, Any]
SECONDS, FLOPS = "seconds_per_answer", "flops_per_answer"
LOW, HIGH = "low", "high"
FORMATS = (".csv", ".json")
_KEY = ("trial", "split", "questions", *DECODING_ROWS)
_TEXTS = ("trial", "label", "split", "decoding")


def key_of(
    model: ModelUnderTest, strategy: Mapping[str, Any], *, split: str, questions: int
) -> dict[str, Any]:
    """What was tried: trial, split, number of questions and strategy, under their columns."""
    said = {name: strategy.get(name, "") for name in DECODING_ROWS}
    said["decoding"] = said["decoding"] or DECODING_ROWS["decoding"].default
    first = {"trial": model.name, "label": model.label}
    return {**first, "split": split, "questions": questions, **said}


def tried(
    key: Mapping[str, Any], model: ModelUnderTest, task: Task, answers: ModelAnswers
) -> dict[str, Any]:
    """A row of the file: the key, each metric, the primary one's 95% interval, and the cost."""
    count, primary = len(answers.rows), task.used_metrics.primary
    values = task.aggregate(answers.rows)
    low, high = _interval(values[primary.name], primary, answers)
    known = [metric.name for metric in _of_all(task) if metric.name in values]
    flops = _flops(model, answers)
    return {
        **key,
        **{name: values[name] for name in known},
        LOW: low,
        HIGH: high,
        SECONDS: answers.seconds / count,
        FLOPS: "" if flops is None else flops / count,
    }


def is_of(row: Tried, key: Mapping[str, Any]) -> bool:
    """Whether a row, also one that a file holds as text, is of what the key names."""
    return all(row.get(name, "") == key[name] for name in _KEY)


def read_tried(file: Path) -> list[Tried]:
    """The rows of a file that this command wrote; none if there is no file. Raises InputError."""
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        is_json = file.suffix == ".json"
        rows = json.loads(text) if is_json else list(csv.DictReader(io.StringIO(text)))
        needed = {*_KEY, SECONDS, FLOPS, LOW, HIGH}
        is_own = isinstance(rows, list) and bool(rows)
        if is_own and all(isinstance(row, Mapping) and needed <= set(row) for row in rows):
            return [{name: _value(name, text) for name, text in row.items()} for row in rows]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"--output: {file} can't be read: {error}") from error
    raise InputError(f"--output: {file} is there and is not of this command. Name another file.")


def write_tried(file: Path, rows: Sequence[Tried]) -> None:
    """Writes all rows; the file is the old or the new one at any time. Raises InputError."""
    if file.suffix == ".json":
        text = json.dumps(list(rows), indent=1) + "\n"
    else:
        out = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    try:
        write_bytes(file, text.encode())
    except OSError as error:
        raise InputError(f"--output: {file} can't be written: {error.strerror}.") from error


def _interval(value: float, metric: MetricSpec, answers: ModelAnswers) -> tuple[Any, Any]:
    if metric.is_share_of_questions:
        return wilson(value, len(answers.rows))
    rows = [dict(row) for row in answers.rows]
    found = split_interval(Predictions.of_rows(rows), metric) or (math.nan, math.nan)
    return tuple("" if math.isnan(end) else end for end in found)  # type: ignore[return-value]


def _flops(model: ModelUnderTest, answers: ModelAnswers) -> float | None:
    """Those of the batches, by the trial's estimate; None if it has none."""
    assert model.folder is not None
    rates = rates_of(model.folder.estimate())
    return None if rates is None else total_flops(answers.work, rates.forward)


def _of_all(task: Task) -> list[MetricSpec]:
    return [metric for metric in task.used_metrics.specs if not metric.among]


def _value(name: str, value: Any) -> Any:
    """A text of a file as the number that it is, but for columns of texts."""
    if name in _TEXTS or not value or not isinstance(value, str):
        return value
    return json.loads(value)  # a whole number stays one
