"""Slices of questions on a report's page: where their evidence is from, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainables.tasks.prompts.page_layout import table_grid, table_statement
from trainables.tasks.slices import Slices, position


def of_page(prompt: str, record: Mapping[str, Any], *, source: str) -> Slices:
    """Of a question on a report's page: `length`, the words of the whole prompt; `fact_position`,
    of the evidence in it; `evidence`: "table", "text" or both, "" if it is not known."""
    rows = record["table"]
    facts = [*record["evidence"], *_named_rows(rows, " ".join(record["evidence"]))]
    found: Slices = {"length": float(len(prompt.split()))}
    if facts:
        found["fact_position"] = position(prompt, facts)
    return {**found, "evidence": source} if source else found


def evidence_source(record: Mapping[str, Any]) -> str:
    """Where the evidence of a page in flat form is from: what is none of its text is its table's;
    "" without a page or evidence."""
    page = " ".join([*record["pre_text"], *record["post_text"]])
    is_text = {fact.strip() in page for fact in record["evidence"]}
    if not page or not is_text:
        return ""
    return "table-text" if len(is_text) > 1 else "text" if True in is_text else "table"


def _named_rows(table: Sequence[Sequence[str]], evidence: str) -> list[str]:
    """The rows of a table whose first cell the evidence names, as prompts show them."""
    named = [row for row in table[1:] if row and row[0].strip() and row[0] in evidence]
    return [text for row in named for text in (table_grid([row]), table_statement(row))]
