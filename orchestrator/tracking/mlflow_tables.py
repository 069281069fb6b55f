"""Rows as a table of MLflow: the JSON file, and the tag by which MLflow shows it as a table.

The result is as from MlflowClient.log_table, which however appends to an existing table: a table
that is sent twice would have its rows twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

TABLES_TAG = "mlflow.loggedArtifacts"


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON {columns, data}: the columns in the order of their first appearance, a list per row,
    null for a missing value and for a number that is not finite. A value that has names itself is
    a column for each, as `slices.length`."""
    flat = [dict(_cells(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    data = [[_cell(row.get(name)) for name in columns] for row in flat]
    return json.dumps({"columns": columns, "data": data}, ensure_ascii=False)


def tables_tag(names: Iterable[str]) -> str:
    """The value of TABLES_TAG on a run that has these tables."""
    return json.dumps([{"path": name, "type": "table"} for name in names])


def _cells(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        inner = value.items() if isinstance(value, Mapping) else None
        yield from ((f"{name}.{key}", each) for key, each in inner) if inner else [(name, value)]


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
