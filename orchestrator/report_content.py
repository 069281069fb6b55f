"""A report as a value: sections of paragraphs and tables, for Markdown and terminal alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


WIDTH = 140  # columns where there is no terminal to ask


@dataclass(frozen=True)
class Paragraph:
    """Prose; a `strong` one is what the reader must not miss."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Code:
    """A command line, to be copied whole."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A picture beside report.md; the terminal shows where it lies."""

    file: str
    path: str
    caption: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, one per header; the first `words` columns hold words, the others numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


Block = Paragraph | Code | Picture | Table


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The one content that report.md and the terminal show."""

    title: str
    sections: Sequence[Section]

    def markdown(self) -> str:
        parts = [f"# {self.title}"]
        for section in self.sections:
            parts.append(f"## {section.heading}")
            parts += [_markdown(block) for block in section.blocks]
        return "\n\n".join(parts) + "\n"

    def print(self, file: IO[str] | None = None, *, width: int | None = None) -> None:
        """Writes to the terminal (or `file`) with rich; no colours where it is not a terminal."""
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
        return f"**{block.text}**" if block.strong else block.text
    if isinstance(block, Code):
        return f"```\n{block.text}\n```"
    if isinstance(block, Picture):
        return f"![{block.caption}]({block.file})"
    marks = ["---" if place < block.words else "---:" for place in range(len(block.headers))]
    rows = [block.headers, marks, *block.rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows)


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def _plain(text: str) -> str:
    """Without Markdown's backquotes."""
    return text.replace("`", "")


def _print(console: Console, block: Block) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(block, Paragraph):
        console.print(Text(_plain(block.text), style="bold" if block.strong else ""))
    elif isinstance(block, Code):
        console.print(Text(f"  {block.text}"), soft_wrap=True)
    elif isinstance(block, Picture):
        console.print(Text(f"{block.caption}: {block.path}"), soft_wrap=True)
    else:
        table = RichTable(box=None, header_style="bold", pad_edge=False)
        for place, header in enumerate(block.headers):
            table.add_column(_plain(header), justify="left" if place < block.words else "right",
                             no_wrap=header == "trial")  # fmt: skip
        for row in block.rows:
            table.add_row(*(Text(_plain(cell)) for cell in row))
        console.print(table)
