"""Values of columns as text, and what is wrong with them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from trainables.tasks.own_data.rows import Row


def text_of(value: Any) -> str:
    """A value as it is written in a prompt or a target: text as it is, "" for none, a number as
    JSON writes it, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: none, blank text, or a number that is none (NaN, infinite)."""
    return _is_no_number(value) or not text_of(value).strip()


def column_faults(rows: Sequence[Row], name: str) -> Iterator[str]:
    """Empty values of a column that every row needs, and values of another kind than the first."""
    first = next((row for row in rows if not is_empty(row.values[name])), None)
    kind = _kind(first.values[name]) if first else ""
    for row in rows:
        value = row.values[name]
        if is_empty(value):
            yield f"{row.place}: {name!r} is empty{_as(value)}. Fill it in, or remove the row."
        elif first is not None and _kind(value) != kind:
            yield (
                f"{row.place}: {name!r} holds {_kind(value)} ({value!r:.40}), and at {first.place} "
                f"{kind}. Write all of them alike."
            )


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _as(value: Any) -> str:
    return f" ({text_of(value)})" if _is_no_number(value) else ""


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    kinds: list[tuple[type, str]] = [(str, "text"), (list, "a list"), (dict, "an object")]
    return next((name for kind, name in kinds if isinstance(value, kind)), "something else")
