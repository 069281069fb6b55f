"""The units of a page that can be retrieved: its sentences or paragraphs, and its table's rows."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

Page = tuple[str, ...]
"""The units of a page, in its order."""

_WORD = re.compile(r"\w")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def page_units(record: Mapping[str, Any], *, header_rows: int = 1) -> Page:
    """The text before the table, the rows of the table as statements, the text after it.

    Each item of the text is a unit; what holds no word is none. The first `header_rows` of the
    table name its columns.
    """
    rows = row_statements(record["table"], header_rows=header_rows)
    return tuple(filter(_WORD.search, [*record["pre_text"], *rows, *record["post_text"]]))


def row_statements(table: Sequence[Sequence[str]], *, header_rows: int = 1) -> list[str]:
    """Each row below the header as a sentence, "the NAME of COLUMN is CELL ;" for each cell.

    With one row of headers it is the text that FinQA's retriever and annotation have of a row
    (czyssrs/FinQA, code/retriever/utils.py).
    """
    headers = [row for row in table[:header_rows] if row]
    width = max(map(len, headers), default=0)
    names = [" ".join(row[at] for row in headers if at < len(row)) for at in range(width)]
    return [_statement(names, row) for row in table[header_rows:] if row]


def sentences(text: str) -> list[str]:
    """The sentences of a text, which end at a line's end or at ".", "!" or "?" and white space."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def places_of(facts: Sequence[str], page: Page) -> list[frozenset[int]]:
    """For each fact the places of the units that are it, but for white space and case; none if no
    unit is."""
    having = _places(page)
    return [having.get(fact, frozenset()) for fact in dict.fromkeys(map(_plain, facts))]


def _statement(names: Sequence[str], row: Sequence[str]) -> str:
    cells = zip(names[1:], row[1:], strict=False)
    said = [names[0] if names else "", *(f"the {row[0]} of {n} is {cell} ;" for n, cell in cells)]
    return " ".join(" ".join(said).split())


@functools.lru_cache(maxsize=1)  # a page may be a whole file, that of all questions
def _places(page: Page) -> Mapping[str, frozenset[int]]:
    having: dict[str, list[int]] = {}
    for at, unit in enumerate(page):
        having.setdefault(_plain(unit), []).append(at)
    return {text: frozenset(places) for text, places in having.items()}


def _plain(text: str) -> str:
    return "".join(text.lower().split())
