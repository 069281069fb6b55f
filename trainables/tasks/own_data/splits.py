"""Splits of a user's own rows: a file each, or shares of one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.errors import InputError
from trainables.tasks.own_data.rows import Row, shortened
from trainables.tasks.task import SPLITS

Splits = dict[str, list[Row]]
TextOf = Callable[[Row], str]


@dataclass(frozen=True)
class Shares:
    """The option `split`: which shares of one file are the selection and the report split.

    Rows with the same value in the column `by` are never in two splits; without it, rows with the
    same input.
    """

    selection: float
    report: float
    by: str | None = None
    seed: int = 0


def parse_shares(given: Any) -> Shares:
    """The option `split`. Raises InputError with all that is wrong with it."""
    if not isinstance(given, Mapping):
        raise InputError(
            f"data.split: got {given!r}; needs a mapping, as {{selection: 0.1, report: 0.1}}."
        )
    faults = list(_share_faults(given))
    if faults:
        raise InputError(faults)
    return Shares(
        selection=float(given["selection"]),
        report=float(given["report"]),
        by=given.get("by"),
        seed=given.get("seed", 0),
    )


def shared_out(rows: Sequence[Row], shares: Shares, input_of: TextOf) -> Splits:
    """The splits of one file, each in the file's order.

    The groups come in an order that their names and the seed decide, whatever the order of the
    rows; the first fill the report split, the next the selection split. Raises InputError if a
    split is left without a row.
    """
    by = shares.by
    group_of: TextOf = input_of if by is None else lambda row: str(row.values[by])
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[group_of(row)] = sizes.get(group_of(row), 0) + 1
    split_of: dict[str, str] = {}
    order = iter(sorted(sizes, key=lambda group: _rank(shares.seed, group)))
    for split, share in (("report", shares.report), ("selection", shares.selection)):
        taken = 0
        while taken < share * len(rows) and (group := next(order, None)) is not None:
            split_of[group] = split
            taken += sizes[group]
    splits: Splits = {split: [] for split in SPLITS}
    for row in rows:
        splits[split_of.get(group_of(row), "train")].append(row)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise InputError(
            f"data.split: {len(rows)} rows in {len(sizes)} groups leave nothing for "
            f"{' and '.join(empty)}. Give other shares, or files of their own."
        )
    return splits


def shared_inputs(splits: Splits, input_of: TextOf) -> list[str]:
    """A fault for each input that is in two splits, with both places, and what to do."""
    seen: dict[str, tuple[str, Row]] = {}
    faults = []
    for split, rows in splits.items():
        for row in rows:
            first_split, first = seen.setdefault(input_of(row), (split, row))
            if first_split != split:
                faults.append(
                    f"{row.place}: this input of the {split} split is also one of the "
                    f"{first_split} split, at {first.place}."
                )
    advice = "Remove them from one split, or write data.allow_duplicates: true if they are meant."
    return [*shortened(faults), advice] if faults else []


def _share_faults(given: Mapping[Any, Any]) -> Iterator[str]:
    known = ("selection", "report", "by", "seed")
    yield from (
        f"data.split.{name}: unknown key; it has {', '.join(known)}."
        for name in given
        if name not in known
    )
    shares: list[Any] = [given.get(name) for name in ("selection", "report")]
    for name, share in zip(("selection", "report"), shares, strict=True):
        if not _is_number(share) or not 0 < share < 1:
            yield f"data.split.{name}: got {share!r}; needs a share above 0 and below 1."
    if all(_is_number(share) for share in shares) and sum(shares) >= 1:
        yield "data.split: selection and report leave nothing for train; needs a sum below 1."
    if not isinstance(given.get("by", ""), str | None):
        yield f"data.split.by: got {given['by']!r}; needs the name of a column."
    seed = given.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int):
        yield f"data.split.seed: got {seed!r}; needs a whole number."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rank(seed: int, group: str) -> str:
    return hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()
