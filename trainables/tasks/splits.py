"""Splits that share no page: halves of one file, and a check of several files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from trainables.errors import InputError, did_you_mean
from trainables.tasks.task import SPLITS, TOO_LONG

T = TypeVar("T")
ASKED = "asked"  # the option by which a command, and no sweep, names the one split it reads
_CARVE_SEED = 7  # which pages of the selection file become the report split


def unknown_options(given: Iterable[str], known: Collection[str]) -> list[str]:
    """The faults of options that a task does not have, with those that a sweep may have."""
    allowed = [name for name in (*known, TOO_LONG) if name != ASKED]
    return [
        f"data.{name}: unknown option.{did_you_mean(name, allowed)}"
        for name in given
        if name not in known
    ]


def files_read(asked: str | None, *, has_report: bool) -> tuple[str, ...]:
    """The splits of which the files are read: all, or that of the one split that is `asked`; halves
    are of the selection file."""
    if asked is None:
        return SPLITS
    return ("selection",) if asked == "report" and not has_report else (asked,)


def halve(records: Sequence[T], page: Callable[[T], str], *, file: str) -> tuple[list[T], list[T]]:
    """Two halves that share no page, each in the order of the file.

    A seeded order of the pages decides in which half each is. Raises InputError, which names the
    file, if there is only one page.
    """
    sizes = Counter(map(page, records))
    first: set[str] = set()
    taken = 0
    for name in sorted(sizes, key=_seeded_rank):
        if 2 * taken < len(records) and len(first) < len(sizes) - 1:
            first.add(name)
            taken += sizes[name]
    if not first:
        raise InputError(
            f"{file}: the file has one page only, so it can't be halved into"
            " selection and report splits; set data.report to another file."
        )
    return (
        [record for record in records if page(record) in first],
        [record for record in records if page(record) not in first],
    )


def check_disjoint(records: Mapping[str, Sequence[T]], *, group: Callable[[T], str]) -> None:
    """Raises InputError that names each pair of splits with a group in common."""
    faults = []
    first_in: dict[str, str] = {}
    for split in SPLITS:
        groups = set(map(group, records[split]))
        for other in SPLITS[: SPLITS.index(split)]:
            shared = sorted(name for name in groups if first_in.get(name) == other)
            if shared:
                faults.append(
                    f"task: the {other} and {split} splits share {len(shared)} pages, such as"
                    f" {shared[0]!r}; give files that share none."
                )
        first_in |= {name: first_in.get(name, split) for name in groups}
    if faults:
        raise InputError(faults)


def _seeded_rank(page: str) -> str:
    return hashlib.sha256(f"{_CARVE_SEED}/{page}".encode()).hexdigest()
