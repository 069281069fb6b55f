"""Values of columns as text, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from trainables.tasks.own_data.rows import Row


def text_of(value: Any) -> str:
    """A value as it is written in a prompt or a target: text as it is, "" for none, a number as
    JSON writes it, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def column_faults(rows: Sequence[Row], name: str) -> Iterator[str]:
    """Empty values of a column that every row needs, and values of another kind than the first."""
    first = next((row for row in rows if _kind(row.values[name]) != "nothing"), None)
    kind = _kind(first.values[name]) if first else ""
    for row in rows:
        value = row.values[name]
        if not text_of(value).strip():
            yield f"{row.place}: {name!r} is empty. Fill it in, or remove the row."
        elif first is not None and _kind(value) != kind:
            yield (
                f"{row.place}: {name!r} holds {_kind(value)} ({value!r:.40}), and at {first.place} "
                f"{kind}. Write all of them alike."
            )


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    kinds: list[tuple[type, str]] = [(str, "text"), (list, "a list"), (dict, "an object")]
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")
