"""What was tried on each trial, as a report: a table of strategies, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.decode.grid import name_of
from orchestrator.decode.tried import FLOPS, HIGH, LOW, SECONDS, Tried
from orchestrator.formatting import format_bare, format_flops, format_metric
from orchestrator.reporting.document import Block, Paragraph, Report, Section, Table
from trainables.spec.metric import MetricSpec
from trainables.spec.rows.decoding_knobs import DECODING_ROWS

_NOTES = (
    "An interval of one strategy is not a test: strategies answer the same questions. A strategy "
    "that is chosen here for its value has been lucky too; judge it on the report split, once. "
    "Seconds are those of this machine now, without loading."
)


def report(rows: Sequence[Tried], primary: MetricSpec) -> Report:
    """One section for each trial, its strategies in the order of the grid, and how to read them."""
    trials: dict[str, list[Tried]] = {}
    for row in rows:
        trials.setdefault(f"{row['trial']} {row['label']}", []).append(row)
    sections = [Section(name, _blocks(own, primary)) for name, own in trials.items()]
    return Report(
        "Decoding strategies", [*sections, Section("How to read it", [Paragraph(_NOTES)])]
    )


def _blocks(rows: Sequence[Tried], primary: MetricSpec) -> list[Block]:
    headers = ["strategy", primary.title, "95% interval", "FLOPs per answer", "s per answer"]
    count, split = rows[0]["questions"], rows[0]["split"]
    of = Paragraph(f"{count:g} questions of the {split} split.")
    return [of, Table(headers, [_cells(row, primary) for row in rows])]


def _cells(row: Tried, primary: MetricSpec) -> list[str]:
    strategy = {name: row[name] for name in DECODING_ROWS if row.get(name, "") != ""}
    return [
        name_of(strategy),
        format_metric(primary, row[primary.name]),
        _interval_text(row, primary),
        format_flops(row[FLOPS] if row[FLOPS] != "" else None),
        f"{row[SECONDS]:.3g}",
    ]


def _interval_text(row: Mapping[str, Any], primary: MetricSpec) -> str:
    if row[LOW] == "":
        return "–"
    return f"{format_bare(primary, row[LOW])} to {format_bare(primary, row[HIGH])}"
