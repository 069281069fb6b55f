"""A report's page as text: tables as grids or as statements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.tasks.prompts.templates import EVIDENCE, PLACEHOLDERS


def render_values(record: Mapping[str, Any], *, context: str) -> dict[str, str]:
    """What every placeholder becomes for a record in flat form; `context`: "full", "evidence"."""
    shown = dict.fromkeys(PLACEHOLDERS, "") | {"question": str(record["question"])}
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
    """One line per row, "- name: cell; cell", after one for the columns; no cell is lost.

    The first row names the columns, in "columns: cell; cell", with its own first cell in the place
    of that word where it has one.
    """
    if not table:
        return ""
    header = f"{table[0][0] or 'columns'}: {'; '.join(table[0][1:])}"
    return "\n".join([header, *(f"- {row[0]}: {'; '.join(row[1:])}" for row in table[1:])])
