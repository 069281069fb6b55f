"""The section on flips, what quantization changed question by question, and flips.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from orchestrator.analysis.flips import Direction, Flip, Pair
from orchestrator.formatting import counted, format_p_value, format_percent
from orchestrator.reporting.document import Block, Paragraph, Section, Table
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
_NO_VERDICT = (
    "The task has no metric by which an answer is right or wrong, so no answer becomes wrong."
)
_NONE = (
    "No two finished configurations differ in their quantization only: nothing can be said "
    "question by question. Search one factor at a time around a reference "
    "(`search.algorithm: one_factor`), or a `grid`, with `none` among the quantizations, or name "
    "such configurations under `search.start_with`."
)


def flips(found: Sequence[Pair], file: Path, *, metric: MetricSpec | None) -> Section:
    """Counts and tests for each reference, then some questions; `file` has every flip."""
    if metric is None:
        return Section(HEADING, [Paragraph(_NO_VERDICT)])
    if not found:
        return Section(HEADING, [Paragraph(_NONE)])
    blocks: list[Block] = [Paragraph(_how(found))]
    is_trained = not all(pair.is_baseline for pair in found)
    if not is_trained:
        blocks.append(Paragraph(_NO_TRAINED))
    for _, group in groupby(found, key=lambda pair: pair.reference.trial_id):
        of_one = list(group)
        blocks += [_counts(of_one), _kinds(of_one)]
    for pair in found:
        on_terminal = 0 if pair.is_baseline and is_trained else EXAMPLES_ON_TERMINAL
        blocks += _examples(pair, on_terminal=on_terminal)
    count = sum(len(pair.flips) for pair in found)
    return Section(HEADING, [*blocks, Paragraph(f"All {counted(count, 'flip')}: `{file.name}`.")])


def write_flips(run: RunFolder, found: Sequence[Pair]) -> Path:
    """Writes flips.csv: a row per pair and flip, always with the same columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row for pair in found for row in _csv_rows(pair))
    run.write_text(run.flips_file, text.getvalue())
    return run.flips_file


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
        pair.quantization,
        pair.quantized.trial_id,
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
        (pair.quantization, kind.kind, str(kind.questions), str(kind.both), str(kind.lost),
         str(kind.gained), str(kind.neither))
        for pair in of_one
        for kind in pair.kinds
    ]  # fmt: skip
    return Table(headers, rows, words=2, caption="The same by kind of question:")


def _examples(pair: Pair, *, on_terminal: int) -> list[Block]:
    names = f"{pair.reference.trial_id} none, {pair.quantized.trial_id} {pair.quantization}"
    blocks: list[Block] = []
    for direction, title in _TITLES.items():
        flips_of = pair.of(direction)
        if flips_of:
            some = f", {EXAMPLES} of {len(flips_of)}" if len(flips_of) > EXAMPLES else ""
            caption = f"{names}: {title}{some}:"
            blocks.append(_questions(pair, flips_of[:EXAMPLES], caption, on_terminal))
    return blocks


def _questions(pair: Pair, shown: Sequence[Flip], caption: str, on_terminal: int) -> Table:
    headers = ["kind", "question", "gold", "none", pair.quantization]
    rows = [
        (flip.kind, flip.question, flip.gold, flip.reference_answer, flip.answer) for flip in shown
    ]
    return Table(headers, rows, words=5, caption=caption, on_terminal=on_terminal)


def _csv_rows(pair: Pair) -> list[tuple[str, ...]]:
    of_pair = (
        pair.reference.label,
        "yes" if pair.is_baseline else "no",
        pair.reference.trial_id,
        pair.quantized.trial_id,
        pair.quantization,
    )
    return [
        (
            *of_pair,
            flip.direction,
            flip.id,
            flip.kind,
            flip.question,
            flip.gold,
            flip.reference_answer,
            flip.answer,
        )
        for flip in pair.flips
    ]
