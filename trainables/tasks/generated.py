"""Records in FinQA's form about invented companies: the data of the quickstart and of its bases.

A page is one company with a small table of line items over two consecutive years. Each question
names its cells, so its program and its answer follow from the page. Everything is drawn from one
seed; companies of the two `pools` never share a name, and no two pages share a table.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ITEMS = (
    "revenue", "expenses", "income", "assets", "debt", "cash", "equity", "taxes", "inventory",
    "payroll", "rent", "interest", "dividends", "royalties", "sales", "goodwill", "deposits",
    "loans", "leases", "premiums", "claims", "fees", "pensions", "depreciation",
)  # fmt: skip
YEARS = tuple(range(2001, 2021))
SMALLEST_CELL, LARGEST_CELL = 1, 50
POOLS = ("pretraining", "finetuning")

_FIRST_SYLLABLES = (
    "al", "bor", "cas", "dex", "el", "far", "gen", "hal", "in", "jor",
    "kel", "lum", "mar", "nor", "or", "pel", "quin", "ros", "sol", "tal",
)  # fmt: skip
_LAST_SYLLABLES = (
    "vex", "dan", "tek", "ria", "mont", "gard", "lix", "core", "wick", "ston",
    "via", "lin", "dor", "mere", "nova", "plex", "ford", "bridge", "well", "zon",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """One company's statement: `cells[item][year]` in millions, two consecutive years."""

    company: str
    items: tuple[str, ...]
    years: tuple[int, int]  # earlier, later
    cells: tuple[tuple[int, int], ...]  # per item: earlier, later

    def cell(self, item: str, year: int) -> int:
        return self.cells[self.items.index(item)][self.years.index(year)]


@dataclass(frozen=True)
class Question:
    """A question about a page with the program that answers it."""

    kind: str
    text: str
    program: str
    exe_ans: float | str


def _lookup(page: Page, item: str, rng: random.Random) -> Question:
    year = rng.choice(page.years)
    value = page.cell(item, year)
    return Question(
        "lookup", f"what was {item} in {year}?", f"add({value}, const_0)", float(value)
    )


def _change(page: Page, item: str, rng: random.Random) -> Question:
    del rng
    earlier, later = page.years
    old, new = page.cell(item, earlier), page.cell(item, later)
    text = f"what was the change in {item} from {earlier} to {later}?"
    return Question("change", text, f"subtract({new}, {old})", float(new - old))


def _decline(page: Page, item: str, rng: random.Random) -> Question:
    del rng
    earlier, later = page.years
    old, new = page.cell(item, earlier), page.cell(item, later)
    text = f"by how much did {item} decline from {earlier} to {later}?"
    return Question("decline", text, f"subtract({old}, {new})", float(old - new))


def _total(page: Page, item: str, rng: random.Random) -> Question:
    del rng
    earlier, later = page.years
    old, new = page.cell(item, earlier), page.cell(item, later)
    text = f"what was total {item} in {earlier} and {later}?"
    return Question("total", text, f"add({old}, {new})", float(old + new))


def _percent_change(page: Page, item: str, rng: random.Random) -> Question:
    del rng
    earlier, later = page.years
    old, new = page.cell(item, earlier), page.cell(item, later)
    text = f"what was the percent change in {item} from {earlier} to {later}?"
    program = f"subtract({new}, {old}), divide(#0, {old})"
    return Question("percent_change", text, program, round((new - old) / old, 5))


def _greater(page: Page, item: str, rng: random.Random) -> Question:
    first, second = rng.sample(page.years, 2)
    a, b = page.cell(item, first), page.cell(item, second)
    text = f"was {item} in {first} greater than in {second}?"
    return Question("greater", text, f"greater({a}, {b})", "yes" if a > b else "no")


def _fell(page: Page, item: str, rng: random.Random) -> Question:
    del rng
    earlier, later = page.years
    old, new = page.cell(item, earlier), page.cell(item, later)
    text = f"did {item} decline from {earlier} to {later}?"
    return Question("fell", text, f"greater({old}, {new})", "yes" if old > new else "no")


KINDS: dict[str, Callable[[Page, str, random.Random], Question]] = {
    "lookup": _lookup,
    "change": _change,
    "decline": _decline,
    "total": _total,
    "percent_change": _percent_change,
    "greater": _greater,
    "fell": _fell,
}


def pages(*, pool: str, seed: int, items_per_page: int = 4) -> Iterator[Page]:
    """Endless pages about the companies of `pool`; no table comes twice from one call."""
    rng = random.Random(f"{pool}/{seed}")
    companies = company_names(pool)
    seen: set[tuple[object, ...]] = set()
    while True:
        later = rng.choice(YEARS[1:])
        items = tuple(rng.sample(ITEMS, items_per_page))
        cells = tuple((_cell(rng), _cell(rng)) for _ in items)
        if (items, cells) not in seen:
            seen.add((items, cells))
            yield Page(rng.choice(companies), items, (later - 1, later), cells)


def _cell(rng: random.Random) -> int:
    return rng.randint(SMALLEST_CELL, LARGEST_CELL)


def company_names(pool: str) -> tuple[str, ...]:
    """The names of one pool: the two pools split all names in halves that share none."""
    names = [first + last for first in _FIRST_SYLLABLES for last in _LAST_SYLLABLES]
    random.Random("company names").shuffle(names)
    half = len(names) // 2
    return tuple(names[:half] if pool == POOLS[0] else names[half:])


def ask(page: Page, kinds: Sequence[str], rng: random.Random) -> Question:
    """One question of one of `kinds` about a random line item of the page."""
    return KINDS[rng.choice(kinds)](page, rng.choice(page.items), rng)
