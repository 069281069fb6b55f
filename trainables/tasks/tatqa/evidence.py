"""The units of a TAT-QA context, and which of them an answer is from.

The annotators named paragraphs, but of a table no rows: these are found by the figures and words
from which the answer is derived.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainables.tasks.retrieval.units import Page, page_units, places_of, row_statements
from trainables.tasks.task import Example

_FIGURE = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_PARTS = "##"  # between those that a count is of


def units_of(example: Example) -> Page:
    """The paragraphs, and the rows of the table below its header."""
    record = example.record
    return page_units(record, header_rows=header_rows(record["table"]))


def header_rows(table: Sequence[Sequence[str]]) -> int:
    """The first row, and the rows after it that name nothing: they belong to the header."""
    below = (at for at, row in enumerate(table) if at and row and row[0].strip())
    return next(below, len(table))


def gold_places(example: Example, page: Page) -> list[frozenset[int]]:
    """For each relevant paragraph its place, and for each figure or word that the answer is derived
    from the places of the rows that have it; nothing if it is from the table and no row is found.
    """
    record = example.record
    paragraphs = set(record["pre_text"])
    facts = places_of([fact for fact in record["evidence"] if fact in paragraphs], page)
    if "table" not in record["answer_from"]:
        return facts
    rows = list(dict.fromkeys(_row_places(record, page)))
    return [*facts, *rows] if rows else []


def _row_places(record: Mapping[str, Any], page: Page) -> Iterator[frozenset[int]]:
    table = record["table"]
    header = header_rows(table)
    rows = [row for row in table[header:] if row]
    statements = row_statements(table, header_rows=header)
    for source in _sources(record):
        having = [at for at, row in enumerate(rows) if source in map(_compared, row)]
        places = places_of([statements[at] for at in having], page)
        if any(places):
            yield frozenset().union(*places)


def _sources(record: Mapping[str, Any]) -> list[str]:
    """The figures of a calculation, the parts of a count, or the items of the answer."""
    derivation = record["derivation"]
    if record["answer_type"] == "arithmetic":
        return [_compared(figure) for figure in _FIGURE.findall(derivation)]
    parts = derivation.split(_PARTS) if record["answer_type"] == "count" else record["items"]
    return [compared for part in parts if (compared := _compared(part))]


def _compared(text: str) -> str:
    """A cell of a figure as the figure alone, any other text without white space and case."""
    figures = _FIGURE.findall(text)
    words = re.sub(r"[\W\d_]", "", text)
    if len(figures) == 1 and not words:
        return str(float(figures[0].replace(",", "")))
    return "".join(text.lower().split())
