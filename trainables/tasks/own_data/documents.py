"""Documents: what `data.retrieve` names of a user's own, from which prompts show the best."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainables.errors import InputError
from trainables.spec.rows.task_knobs import FULL
from trainables.tasks.own_data.rows import FORMATS, read_rows, shortened
from trainables.tasks.own_data.values import text_of
from trainables.tasks.retrieval.options import ENCODER, SECTION, context_faults
from trainables.tasks.retrieval.units import Page, places_of, sentences
from trainables.tasks.task import Example

FROM, GOLD = "from", "evidence"
KEYS = (FROM, GOLD, ENCODER)  # of the section
TEXT, ID = "text", "id"  # the columns of a file of documents


def document_faults(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with a task's section `retrieve` and its knobs of retrieval."""
    faults = context_faults(given, section=KEYS)
    section = given.get(SECTION)
    if faults or (section is None and given.get("context", FULL) == FULL):
        return faults
    context = given.get("context", FULL)
    if FROM not in (section or {}):
        return [
            f"data.{SECTION}.{FROM}: missing; name a column, or a file with a column {TEXT!r}, of "
            "what is retrieved."
        ]
    if context == "evidence" and GOLD not in (section or {}):
        return [f"data.{SECTION}.{GOLD}: missing; space.context: {context} shows its column."]
    return []


@dataclass(frozen=True)
class Documents:
    """The documents of each question: those of its column, or all of a file."""

    source: str  # a column, or a file
    gold: str | None  # the column of the evidence

    @property
    def columns(self) -> list[str]:
        """Those that every row needs."""
        return [*([] if self._is_file else [self.source]), *([self.gold] if self.gold else [])]

    def page_of(self, example: Example) -> Page:
        """The units of a question: the items of its column, of a text the sentences; or each
        document of the file."""
        if self._is_file:
            return self._of_file[0]
        value = example.record["columns"][self.source]
        found = map(text_of, value) if isinstance(value, list) else sentences(text_of(value))
        return tuple(found)

    def gold_of(self, example: Example, page: Page) -> list[frozenset[int]]:
        """The places of each piece of its evidence, given by id or as it is written; of what is not
        there none."""
        by_id = self._of_file[1]
        return places_of([by_id.get(each, each) for each in self._evidence(example)], page)

    def shown(self, example: Example, context: str) -> str:
        """What prompts show where nothing is retrieved: the evidence, or all that the column has; a
        whole file is not shown."""
        page = self.page_of(example)
        if context == FULL:
            return "" if self._is_file else "\n".join(page)
        places = sorted({min(places) for places in self.gold_of(example, page)})
        return "\n".join(page[place] for place in places)

    def faults(self, examples: Sequence[Example]) -> Iterator[str]:
        """Rows without a column, and evidence that is none of the documents."""
        for example in examples:
            place, columns = example.record["place"], example.record["columns"]
            missing = [name for name in self.columns if name not in columns]
            for name in missing:
                yield f"{place}: no column {name!r}, which data.{SECTION} names."
            if missing:
                continue
            page = self.page_of(example)
            for fact in self._evidence(example):
                if places_of([self._of_file[1].get(fact, fact)], page) == [frozenset()]:
                    yield f"{place}: the evidence {fact!r:.60} is no document of {self.source}."

    def digest(self, examples: Sequence[Example]) -> str:
        """A sha256 of the documents and the evidence of these questions."""
        of_rows = [[each.record["columns"].get(n) for n in self.columns] for each in examples]
        texts, by_id = self._of_file
        content = json.dumps([of_rows, texts, sorted(by_id.items())], default=str)
        return hashlib.sha256(content.encode()).hexdigest()

    def _evidence(self, example: Example) -> list[str]:
        value = example.record["columns"].get(self.gold) if self.gold else None
        values = value if isinstance(value, list) else [value]
        return [text for each in values if (text := text_of(each)).strip()]

    @property
    def _is_file(self) -> bool:
        return any(end.lower() in FORMATS for end in Path(self.source).suffixes)

    @cached_property
    def _of_file(self) -> tuple[Page, Mapping[str, str]]:
        """The documents, and by id those that have one."""
        if not self._is_file:
            return (), {}
        rows = read_rows(self.source, columns=(TEXT,))
        by_id: dict[str, str] = {}
        faults = []
        for row in rows:
            text, name = text_of(row.values[TEXT]), text_of(row.values.get(ID))
            if not text.strip():
                faults.append(f"{row.place}: an empty {TEXT}; remove the row.")
            if name.strip() and name in by_id:
                faults.append(f"{row.place}: the {ID} {name!r:.60} stands in an earlier row too.")
            by_id |= {name: text} if name.strip() else {}
        if faults:
            raise InputError(shortened(faults))
        return tuple(text_of(row.values[TEXT]) for row in rows), by_id
