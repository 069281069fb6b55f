"""The section on flips, what quantization changed question by question, and flips.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from orchestrator.analysis.flip_study import pair_slices
from orchestrator.analysis.flips import QUANTIZATION, Direction, Flip, Pair
from orchestrator.analysis.slices import has_slices
from orchestrator.formatting import counted, format_p_value, format_percent
from orchestrator.reporting.document import Block, Paragraph, Section, Table
from orchestrator.runs.predictions import PredictionReader
from trainables.spec.metric import MetricSpec
from trainables.storage.run_folder import RunFolder

HEADING = "What quantization changed"
EXAMPLES = 10  # per pair and direction, in report.md
EXAMPLES_ON_TERMINAL = 3
COLUMNS = ("base", "untrained", "reference_trial", "quantized_trial", "quantization", "direction",
           "id", "kind", "question", "gold", "reference_answer", "quantized_answer")  # fmt: skip
_TITLES: dict[Direction, str] = {
    "lost": "right without quantization, wrong with it",
    "gained": "wrong without quantization, right with it",
}
_NO_TRAINED = (
    "No two trained configurations differ in their quantization only, so these are of the "
    "untrained bases. For trained ones, search one factor at a time around a reference "
    "(`search.algorithm: one_factor`), or a `grid`, with every quantization, or name them "
    "under `search.start_with`."
)
NO_VERDICT = (
    "The task has no metric by which an answer is right or wrong, so no answer becomes wrong."
)
_NONE = (
    "No two finished configurations differ in their quantization only: nothing can be said "
    "question by question. Search one factor at a time around a reference "
    "(`search.algorithm: one_factor`), or a `grid`, with `none` among the quantizations, or name "
    "such configurations under `search.start_with`."
)


def flips(
    found: Sequence[Pair], file: Path, *, metric: MetricSpec | None, study: Sequence[Block] = ()
) -> Section:
    """Counts and tests for each reference, what `study` says of slices, then some questions;
    `file` has every flip."""
    if metric is None:
        return Section(HEADING, [Paragraph(NO_VERDICT)])
    if not found:
        return Section(HEADING, [Paragraph(_NONE)])
    blocks: list[Block] = [Paragraph(_how(found))]
    is_trained = not all(pair.is_baseline for pair in found)
    if not is_trained:
        blocks.append(Paragraph(_NO_TRAINED))
    for _, group in groupby(found, key=lambda pair: pair.reference.trial_id):
        of_one = list(group)
        blocks += [_counts(of_one), _kinds(of_one)]
    blocks += study
    for pair in found:
        on_terminal = 0 if pair.is_baseline and is_trained else EXAMPLES_ON_TERMINAL
        blocks += _examples(pair, on_terminal=on_terminal)
    count = sum(len(pair.flips) for pair in found)
    return Section(HEADING, [*blocks, Paragraph(f"All {counted(count, 'flip')}: `{file.name}`.")])


def write_flips(
    run: RunFolder,
    found: Sequence[Pair],
    predictions: PredictionReader,
    *,
    factor: str = QUANTIZATION,
) -> Path:
    """Writes flips.csv: a row per pair and flip. Behind COLUMNS are the scores of both answers and
    the question's slices, if the worker wrote slices."""
    file, _ = run.flips_files(factor)
    more = _more_columns(found, predictions)
    names = COLUMNS if factor == QUANTIZATION else _columns_of(factor)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *more])
    writer.writerows(row for pair in found for row in _csv_rows(pair, predictions, more))
    run.write_text(file, text.getvalue())
    return file


def _how(found: Sequence[Pair]) -> str:
    trained = sum(not pair.is_baseline for pair in found)
    return (
        f"{counted(trained, 'pair')} of trained configurations and {len(found) - trained} of "
        "untrained bases "
        "differ in their quantization only. Lost: the unquantized one alone is right; gained: the "
        "quantized one alone. Exact McNemar on the questions of the selection split that both "
        "answered, each pair tested by itself."
    )


def _counts(of_one: Sequence[Pair]) -> Table:
    reference = of_one[0].reference
    what = "untrained base" if of_one[0].is_baseline else "trained configuration"
    caption = f"The {what} {reference.trial_id}, {reference.label}, against:"
    headers = ["", "trial", "asked", "none right", "it right", "lost", "gained", "points",
               "95% interval", "McNemar p", ""]  # fmt: skip
    return Table(headers, [_count_row(pair) for pair in of_one], words=2, caption=caption)


def _count_row(pair: Pair) -> tuple[str, ...]:
    test = pair.comparison
    both = sum(kind.both for kind in pair.kinds)
    return (
        pair.level,
        pair.other.trial_id,
        str(test.count),
        format_percent((both + test.only_b) / test.count),
        format_percent((both + test.only_a) / test.count),
        str(test.only_b),
        str(test.only_a),
        f"{100 * test.difference:+.1f}",
        f"{100 * test.low:+.1f} to {100 * test.high:+.1f}",
        format_p_value(test.p_value).removeprefix("p ").removeprefix("= "),
        test.verdict,
    )


def _kinds(of_one: Sequence[Pair]) -> Table:
    headers = ["", "kind of question", "asked", "both right", "lost", "gained", "both wrong"]
    rows = [
        (pair.level, kind.kind, str(kind.questions), str(kind.both), str(kind.lost),
         str(kind.gained), str(kind.neither))
        for pair in of_one
        for kind in pair.kinds
    ]  # fmt: skip
    return Table(headers, rows, words=2, caption="The same by kind of question:")


def _examples(pair: Pair, *, on_terminal: int) -> list[Block]:
    names = f"{pair.reference.trial_id} none, {pair.other.trial_id} {pair.level}"
    blocks: list[Block] = []
    for direction, title in _TITLES.items():
        flips_of = pair.of(direction)
        if flips_of:
            some = f", {EXAMPLES} of {len(flips_of)}" if len(flips_of) > EXAMPLES else ""
            caption = f"{names}: {title}{some}:"
            blocks.append(_questions(pair, flips_of[:EXAMPLES], caption, on_terminal))
    return blocks


def _questions(pair: Pair, shown: Sequence[Flip], caption: str, on_terminal: int) -> Table:
    headers = ["kind", "question", "gold", "none", pair.level]
    rows = [
        (flip.kind, flip.question, flip.gold, flip.reference_answer, flip.answer) for flip in shown
    ]
    return Table(headers, rows, words=5, caption=caption, on_terminal=on_terminal)


def _columns_of(factor: str) -> tuple[str, ...]:
    renamed = {
        "quantized_trial": "trial",
        QUANTIZATION: factor,
        "quantized_answer": "answer",
    }
    return tuple(renamed.get(name, name) for name in COLUMNS)


def _more_columns(found: Sequence[Pair], predictions: PredictionReader) -> list[str]:
    """The columns of scores, for both trials, and of slices; none for pairs without slices."""
    written = [pair for pair in found if has_slices(predictions(pair.reference))]
    if not written:
        return []
    metrics = written[0].reference.task_metrics.specs
    keys = dict.fromkeys(spec.per_question_key for spec in metrics if spec.per_question_key)
    scores = [f"{who}_score_{key}" for key in keys for who in _WHO]
    names = (name for pair in written for name in pair_slices(pair, predictions))
    return [*scores, *(name for name in dict.fromkeys(names) if name not in COLUMNS)]


_WHO = ("reference", "other")


def _csv_rows(
    pair: Pair, predictions: PredictionReader, more: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    of_pair = (
        pair.reference.label,
        "yes" if pair.is_baseline else "no",
        pair.reference.trial_id,
        pair.other.trial_id,
        pair.level,
    )
    columns = _values(pair, predictions) if more else {}
    for flip in pair.flips:
        yield (
            *of_pair,
            flip.direction,
            flip.id,
            flip.kind,
            flip.question,
            flip.gold,
            flip.reference_answer,
            flip.answer,
            *(_cell(columns.get(name, {}).get(flip.id)) for name in more),
        )


def _values(pair: Pair, predictions: PredictionReader) -> dict[str, dict[str, Any]]:
    """The scores and slices of each question by the names of their columns."""
    scores = {}
    for who, trial in zip(_WHO, (pair.reference, pair.other), strict=True):
        answers = predictions(trial)
        for spec in trial.task_metrics.specs:
            key = spec.per_question_key
            scores[f"{who}_score_{key}"] = dict(zip(answers.ids, answers.column(key), strict=True))
    return {**scores, **pair_slices(pair, predictions)}


def _cell(value: Any) -> str:
    """Flags as 0 and 1, numbers as short as they are."""
    if isinstance(value, bool | int | float):
        return f"{float(value):g}"
    return "" if value is None else str(value)
