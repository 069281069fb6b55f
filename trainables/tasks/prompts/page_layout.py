"""The page of a report as text, with its table as a grid or as statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.spec.rows.task_knobs import EVIDENCE
from trainables.tasks.prompts.templates import PLACEHOLDERS


def render_values(
    record: Mapping[str, Any], *, context: str, retrieved: str | None = None
) -> dict[str, str]:
    """The value of every placeholder for a record in flat form; `context`: "full", "evidence".

    What is `retrieved` is shown instead of either.
    """
    shown = dict.fromkeys(PLACEHOLDERS, "") | {"question": str(record["question"])}
    if retrieved is not None:
        return shown | {EVIDENCE: retrieved}
    if context == EVIDENCE:
        return shown | {EVIDENCE: "\n".join(record["evidence"])}
    return shown | {
        "pre_text": " ".join(record["pre_text"]),
        "table": table_grid(record["table"]),
        "statements": table_statements(record["table"]),
        "post_text": " ".join(record["post_text"]),
    }


def table_grid(table: Sequence[Sequence[str]]) -> str:
    """One line per row, cells joined by " | "."""
    return "\n".join(" | ".join(row) for row in table)


def table_statements(table: Sequence[Sequence[str]]) -> str:
    """A line for the columns, then one for each row, "- name: cell; cell"; no cell is left out.

    The first row names the columns, as "columns: cell; cell"; its own first cell, if it is not
    empty, replaces that word. A row without cells says nothing and gets no line.
    """
    rows = [row for row in table if row]
    if not rows:
        return ""
    header = f"{rows[0][0] or 'columns'}: {'; '.join(rows[0][1:])}"
    return "\n".join([header, *map(table_statement, rows[1:])])


def table_statement(row: Sequence[str]) -> str:
    """The line of a row of cells among `table_statements`."""
    return f"- {row[0]}: {'; '.join(row[1:])}"
