"""Records in FinQA's form about invented companies: the data of the quickstart and of its bases.

A page is one company with a small statement of line items over two consecutive years, the later
year first. A question names its line item, so its program and its answer follow from the page. All
is drawn from one seed. Companies of the two `POOLS` never share a name, and no two pages of one
seed share a table. One earlier cell of each page is round; questions about changes in percent are
about round cells only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.errors import InputError, did_you_mean
from trainables.tasks.task import SPLITS

VERSION = "1"

ITEMS = (
    "revenue", "expenses", "income", "assets", "debt", "cash", "equity", "taxes", "inventory",
    "payroll", "rent", "interest", "dividends", "royalties", "sales", "goodwill", "deposits",
    "loans", "leases", "premiums", "claims", "fees", "pensions", "depreciation",
)  # fmt: skip
YEARS = tuple(range(2001, 2021))
SMALLEST_CELL, LARGEST_CELL = 1, 50
ROUND_CELLS = (10, 20, 25, 50)  # a change in percent of these has at most two decimals
ROWS = (2, 3, 4)
POOLS = ("pretraining", "finetuning")

_FIRST_SYLLABLES = (
    "al", "bor", "cas", "dex", "el", "far", "gen", "hal", "in", "jor",
    "kel", "lum", "mar", "nor", "or", "pel", "quin", "ros", "sol", "tal",
)  # fmt: skip
_LAST_SYLLABLES = (
    "vex", "dan", "tek", "ria", "mont", "gard", "lix", "core", "wick", "ston",
    "via", "lin", "dor", "mere", "nova", "plex", "ford", "bridge", "well", "zon",
)  # fmt: skip

SYLLABLES = (*_FIRST_SYLLABLES, *_LAST_SYLLABLES)


@dataclass(frozen=True)
class Page:
    """One company's statement in millions: `cells[i]` is item i's (later, earlier) year."""

    company: str
    items: tuple[str, ...]
    later_year: int
    cells: tuple[tuple[int, int], ...]
    audited: bool

    @property
    def pre_text(self) -> list[str]:
        return [f"{self.company} reports in millions of dollars."]

    @property
    def post_text(self) -> list[str]:
        return [f"the figures are {'audited' if self.audited else 'unaudited'}."]

    @property
    def table(self) -> list[list[str]]:
        """The statement as FinQA writes it: a header, then rows that begin with their name."""
        rows = [
            [item, *map(str, cells)] for item, cells in zip(self.items, self.cells, strict=True)
        ]
        return [["", str(self.later_year), str(self.later_year - 1)], *rows]


@dataclass(frozen=True)
class Question:
    """A question about a page, with the FinQA program that answers it and the program's result.

    `exe_ans` is the executed program, rounded to 5 decimals, or "yes" or "no".
    """

    kind: str
    text: str
    program: str
    exe_ans: float | str


def _latest(item: str, new: int, old: int) -> Question:
    del old
    text = f"what was the latest amount of {item}?"
    return Question("latest", text, f"add({new}, const_0)", float(new))


def _prior(item: str, new: int, old: int) -> Question:
    del new
    text = f"what was the prior amount of {item}?"
    return Question("prior", text, f"add({old}, const_0)", float(old))


def _change(item: str, new: int, old: int) -> Question:
    text = f"what was the change in {item}?"
    return Question("change", text, f"subtract({new}, {old})", float(new - old))


def _total(item: str, new: int, old: int) -> Question:
    text = f"what was the total of {item}?"
    return Question("total", text, f"add({new}, {old})", float(new + old))


def _percent_change(item: str, new: int, old: int) -> Question:
    text = f"what was the percent change in {item}?"
    program = f"subtract({new}, {old}), divide(#0, {old})"
    return Question("percent_change", text, program, round((new - old) / old, 5))


def _rose(item: str, new: int, old: int) -> Question:
    text = f"was there a rise in {item}?"
    return Question("rose", text, f"greater({new}, {old})", "yes" if new > old else "no")


def _decline(item: str, new: int, old: int) -> Question:
    text = f"what was the decline in {item}?"
    return Question("decline", text, f"subtract({old}, {new})", float(old - new))


def _fell(item: str, new: int, old: int) -> Question:
    text = f"was there a fall in {item}?"
    return Question("fell", text, f"greater({old}, {new})", "yes" if old > new else "no")


KINDS: dict[str, Callable[[str, int, int], Question]] = {
    "latest": _latest,
    "prior": _prior,
    "change": _change,
    "total": _total,
    "percent_change": _percent_change,
    "rose": _rose,
    "decline": _decline,
    "fell": _fell,
}


def records(
    *, pool: str, kinds: Sequence[str], count: int, seed: int, split: str
) -> list[dict[str, Any]]:
    """`count` records in the form of FinQA's official files, one question to a page.

    The splits of one seed share no table, and the same arguments always give the same records;
    a larger `count` only appends. Raises InputError for an unknown pool, split or kind.
    """
    _check(pool=pool, kinds=kinds, split=split)
    rng = random.Random(f"questions/{pool}/{seed}/{split}")
    drawn = pages(pool=pool, seed=seed, split=split)
    return [_record(next(drawn), kinds, rng, f"{split}/{pool}-{seed}-{n}") for n in range(count)]


def pages(
    *, pool: str, seed: int, split: str = SPLITS[0], rows: Sequence[int] = ROWS
) -> Iterator[Page]:
    """Endless pages about the companies of `pool`; no table comes twice within a seed.

    A table belongs to one split by its content, so no two splits can share one.
    """
    rng = random.Random(f"pages/{pool}/{seed}/{split}")
    companies = company_names(pool)
    seen: set[tuple[object, ...]] = set()
    while True:
        page = _page(rng, companies, rng.choice(rows))
        key = (page.items, page.cells, page.later_year)
        if key not in seen and _split_of(page) == split:
            seen.add(key)
            yield page


def company_names(pool: str) -> tuple[str, ...]:
    """The names of one pool: the two pools split all names in halves that share none."""
    names = [first + last for first in _FIRST_SYLLABLES for last in _LAST_SYLLABLES]
    random.Random("company names").shuffle(names)
    half = len(names) // 2
    return tuple(names[:half] if pool == POOLS[0] else names[half:])


def ask(page: Page, kinds: Sequence[str], rng: random.Random) -> Question:
    """One question of one of `kinds` about a random line item of the page."""
    kind = rng.choice(kinds)
    rows = range(len(page.items))
    round_rows = [row for row in rows if page.cells[row][1] in ROUND_CELLS]
    row = rng.choice(round_rows if kind == "percent_change" else rows)
    return KINDS[kind](page.items[row], *page.cells[row])


def _check(*, pool: str, kinds: Sequence[str], split: str) -> None:
    faults = [
        f"generated: no {name} named {given!r}.{did_you_mean(given, allowed)}"
        for name, values, allowed in (
            ("pool", [pool], POOLS),
            ("split", [split], SPLITS),
            ("kind", kinds, tuple(KINDS)),
        )
        for given in values
        if given not in allowed
    ]
    if not kinds:
        faults.append(f"generated: no kinds given. Allowed: {', '.join(KINDS)}.")
    if faults:
        raise InputError(faults)


def _record(page: Page, kinds: Sequence[str], rng: random.Random, record_id: str) -> dict[str, Any]:
    asked = ask(page, kinds, rng)
    exe_ans = asked.exe_ans
    return {
        "id": record_id,
        "pre_text": page.pre_text,
        "table": page.table,
        "post_text": page.post_text,
        "qa": {
            "question": asked.text,
            "program": asked.program,
            "exe_ans": exe_ans,
            "answer": exe_ans if isinstance(exe_ans, str) else f"{exe_ans:g}",
            "kind": asked.kind,
        },
    }


def _page(rng: random.Random, companies: Sequence[str], rows: int) -> Page:
    return Page(
        company=rng.choice(companies),
        items=tuple(rng.sample(ITEMS, rows)),
        later_year=rng.choice(YEARS[1:]),
        cells=_cells(rng, rows),
        audited=rng.random() < 0.5,
    )


def _cells(rng: random.Random, rows: int) -> tuple[tuple[int, int], ...]:
    cells = [(_cell(rng), _cell(rng)) for _ in range(rows)]
    row = rng.randrange(rows)
    cells[row] = (cells[row][0], rng.choice(ROUND_CELLS))
    return tuple(cells)


def _cell(rng: random.Random) -> int:
    return rng.randint(SMALLEST_CELL, LARGEST_CELL)


def _split_of(page: Page) -> str:
    """A table's split: half of all tables are for training, a quarter for each other one."""
    draw = random.Random(repr(page.table)).randrange(4)
    return SPLITS[max(0, draw - 1)]
