"""Tagged sentences: rows of tokens and tags as rows of a text and its entities.

Accepted are a row for each sentence, with a list of tokens and a list of as many tags (in CSV as
JSON or with spaces between them), and a row for each token, with the columns that name its
sentence. Tags are `O`, and `B-PER`, `I-PER`, `PER_B`, `PER_I` or `PER` alone; other values, as
numbers, need `tags`, which says what each means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from trainables.errors import InputError
from trainables.metrics.of_entities import Entity, written
from trainables.tasks.own_data.rows import Row, shortened
from trainables.tasks.own_data.values import text_of

OUTSIDE = "O"
_TAG = re.compile(r"(?:(?P<first>[BIESLU])-)?(?P<label>.+?)(?:_(?P<last>[BI]))?")
_BEGINS = ("B", "S", "U")


@dataclass(frozen=True)
class TaggedColumns:
    """The columns of tokens and tags; `sentence` are those that name a token's sentence, none if a
    row is a sentence. `meanings` has the tag for each value of the file that is not one itself.
    In the column `kept`, if named, are the tags as `O`, `B-PER` and `I-PER`, with spaces between.
    """

    tokens: str
    tags: str
    sentence: tuple[str, ...]
    meanings: Mapping[str, str]
    kept: str = ""


def sentences(rows: Sequence[Row], columns: TaggedColumns) -> list[Row]:
    """A row for each sentence: its text in the column of tokens, its entities in that of tags.

    Raises InputError with all rows that lack a column or have unequal numbers of tokens and tags.
    """
    needed = (columns.tokens, columns.tags, *columns.sentence)
    faults = [
        f"{row.place}: no column {name!r}; there are {', '.join(map(str, row.values))}."
        for row in rows
        for name in needed
        if name not in row.values
    ]
    if faults:
        raise InputError(shortened(faults))
    made = []
    for row, tokens, tags in _tagged(rows, columns):
        if len(tokens) != len(tags):
            faults.append(f"{row.place}: {len(tokens)} tokens and {len(tags)} tags.")
            continue
        known = [columns.meanings.get(tag, tag) for tag in tags]
        values = {
            columns.tokens: " ".join(tokens),
            columns.tags: written(entities(tokens, known)),
        }
        if columns.kept:
            values[columns.kept] = " ".join(_places(known))
        made.append(Row({**row.values, **values}, row.place))
    if faults:
        raise InputError(shortened(faults))
    return made


def entities(tokens: Sequence[str], tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence: neighbours of one label, until one begins another."""
    found: list[tuple[list[str], str]] = []
    for token, tag in zip(tokens, _places(tags), strict=True):
        place, _, label = tag.partition("-")
        if place == "B":
            found.append(([], label))
        if label:
            found[-1][0].append(token)
    return [(" ".join(words), label) for words, label in found]


def _places(tags: Sequence[str]) -> list[str]:
    """The tags as `O`, `B-PER` and `I-PER`: what is first or of another label begins an entity."""
    places, before = [], ""
    for label, begins in map(_read_tag, tags):
        places.append(f"{'B' if begins or label != before else 'I'}-{label}" if label else OUTSIDE)
        before = label
    return places


def _read_tag(tag: str) -> tuple[str, bool]:
    """The label, "" outside of entities, and whether the tag begins an entity."""
    match = _TAG.fullmatch(tag)
    if tag == OUTSIDE or match is None:
        return "", False
    return match["label"], (match["first"] or match["last"]) in _BEGINS


def _tagged(
    rows: Sequence[Row], columns: TaggedColumns
) -> Iterator[tuple[Row, list[str], list[str]]]:
    if not columns.sentence:
        for row in rows:
            yield row, _items(row.values[columns.tokens]), _items(row.values[columns.tags])
        return
    for _, group in groupby(rows, key=lambda row: [row.values[name] for name in columns.sentence]):
        members = list(group)
        tokens, tags = (
            [text_of(row.values[name]).strip() for row in members]
            for name in (columns.tokens, columns.tags)
        )
        yield members[0], tokens, tags


def _items(value: Any) -> list[str]:
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return value.split()
        try:
            found: Any = json.loads(value)
        except ValueError:
            return value.split()
        return _items(found) if isinstance(found, list) else []
    return [text_of(item).strip() for item in value] if isinstance(value, list) else []
