"""A report as a value: sections of paragraphs and tables, rendered as Markdown and with rich."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console


WIDTH = 140  # columns of an output that is not a terminal
LONGEST_UNBROKEN = 14  # characters of a word that is not broken in a narrow terminal


@dataclass(frozen=True)
class Paragraph:
    """Prose; a `strong` paragraph is emphasized."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Code:
    """A command line."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A picture beside report.md; the terminal shows its path."""

    file: str
    path: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, one per header; the first `words` columns hold text, the others numbers.

    If `on_terminal` is given, the terminal shows so many rows and the number of the others; with 0
    it shows neither table nor `caption`.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    caption: str = ""
    on_terminal: int | None = None


Block = Paragraph | Code | Picture | Table


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The content of both report.md and the output on the terminal."""

    title: str
    sections: Sequence[Section]

    def markdown(self) -> str:
        parts = [f"# {self.title}"]
        for section in self.sections:
            parts.append(f"## {section.heading}")
            parts += [_markdown(block) for block in section.blocks]
        return "\n\n".join(parts) + "\n"

    def print(self, file: IO[str] | None = None, *, width: int | None = None) -> None:
        """Writes to the terminal, or to `file`, with rich; without colours unless on a terminal."""
        from rich.console import Console

        console = Console(file=file, width=width, highlight=False)
        if width is None and not console.is_terminal:
            console = Console(file=file, width=WIDTH, highlight=False)
        console.rule(_plain(self.title))
        for section in self.sections:
            console.print()
            console.print(_plain(section.heading), style="bold cyan", markup=False)
            for block in section.blocks:
                _print(console, block)


def _markdown(block: Block) -> str:
    if isinstance(block, Paragraph):
        text = _harmless(block.text)
        return f"**{text}**" if block.strong else text
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.file})"
    marks = ["---" if place < block.words else "---:" for place in range(len(block.headers))]
    rows = [block.headers, marks, *block.rows]
    lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*([_harmless(block.caption), ""] if block.caption else []), *lines])


def _escaped(cell: str) -> str:
    return " ".join(_harmless(cell).replace("|", "\\|").split())


def _plain(text: str) -> str:
    """The text without Markdown's backquotes."""
    return _harmless(text).replace("`", "")


def _harmless(text: str) -> str:
    """The text without control characters, by which an answer could control the terminal."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


def _print(console: Console, block: Block) -> None:
    from rich.text import Text

    if isinstance(block, Paragraph):
        console.print(Text(_plain(block.text), style="bold" if block.strong else ""))
    elif isinstance(block, Code):
        console.print(Text(f"  {block.text}"), soft_wrap=True)
    elif isinstance(block, Picture):
        console.print(Text(f"{block.caption}: {block.path}"), soft_wrap=True)
    elif block.on_terminal != 0:
        _print_table(console, block)


def _print_table(console: Console, block: Table) -> None:
    """Prints all of every cell; numbers are broken only if the terminal is too narrow for them."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rows = [[_plain(cell) for cell in row] for row in block.rows[: block.on_terminal]]
    headers = [_plain(header) for header in block.headers]
    columns = [[header, *(row[at] for row in rows)] for at, header in enumerate(headers)]
    natural = [max(map(len, column)) for column in columns]
    least = [_longest_word(column, words=at < block.words) for at, column in enumerate(columns)]
    gap = 2 if sum(natural) + 2 * (len(columns) - 1) <= console.width else 1
    widths = _fitted(natural, least, room=console.width - gap * (len(columns) - 1))
    table = RichTable(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for at, header in enumerate(headers):
        justify: Literal["left", "right"] = "left" if at < block.words else "right"
        table.add_column(header, justify=justify, overflow="fold", width=widths[at])
    for row in rows:
        table.add_row(*map(Text, row))
    if block.caption:
        console.print(Text(_plain(block.caption)))
    console.print(table)
    if len(block.rows) > len(rows):
        console.print(f"... {len(block.rows) - len(rows)} more in report.md")


def _fitted(natural: Sequence[int], least: Sequence[int], *, room: int) -> list[int]:
    """Widths that sum up to `room` at most; the widest shrink, below `least` only if all must."""
    widths = list(natural)
    while sum(widths) > room and max(widths) > 1:
        above = [at for at, width in enumerate(widths) if width > least[at]]
        widest = max(above or range(len(widths)), key=lambda at: widths[at])
        widths[widest] -= 1
    return widths


def _longest_word(column: Sequence[str], *, words: bool) -> int:
    """The width at which no number of a column is broken; long words of text may be."""
    longest = max((len(word) for cell in column for word in cell.split()), default=1)
    return min(longest, LONGEST_UNBROKEN) if words else longest
