"""Tables on a narrow terminal are complete, and their content cannot control the terminal."""

from __future__ import annotations

import io

import pytest

from orchestrator.reporting.document import Paragraph, Report, Section, Table

HEADERS = ["trial", "configuration", "EmAcc (95%)", "report EmAcc (95%)", "eval loss",
           "train memory", "eval memory", "time"]  # fmt: skip
ROW = ["de2689d2fbde", "small int8 r8 a16 lr3.2e-03 b8x1", "64.7% (56.7–71.9)",
       "60.0% (46.2–72.4)", "1.500", "64.0 MiB", "1.25 GiB", "2 h 05 min"]  # fmt: skip


def shown(*blocks: Table | Paragraph, width: int) -> str:
    screen = io.StringIO()
    Report("Sweep", [Section("Best", blocks)]).print(screen, width=width)
    return screen.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_is_cut_or_broken(width: int) -> None:
    text = shown(Table(HEADERS, [ROW], words=2), width=width)
    assert "…" not in text and all(len(line) <= width for line in text.splitlines())
    for number in ("64.7%", "(56.7–71.9)", "(46.2–72.4)", "1.500", "lr3.2e-03", "de2689d2fbde"):
        assert number in text


@pytest.mark.parametrize("width", [20, 40])
def test_where_there_is_no_room_every_character_is_still_there(width: int) -> None:
    text = shown(Table(HEADERS, [ROW], words=2), width=width)
    assert all(len(line) <= width for line in text.splitlines())
    for mark in "de2689d2fbde":
        assert mark in text


def test_some_rows_may_be_left_to_the_file() -> None:
    rows = [[f"question {n}"] for n in range(5)]
    some = Table(["what"], rows, caption="Questions:", on_terminal=2)
    text = shown(some, width=80)
    assert "Questions:" in text and "question 1" in text and "question 2" not in text
    assert "... 3 more in report.md" in text
    none = Table(["what"], rows, caption="Questions:", on_terminal=0)
    assert "question" not in shown(none, width=80).lower()
    markdown = Report("Sweep", [Section("Best", [none])]).markdown()
    assert "Questions:\n\n| what |" in markdown and markdown.count("| question") == 5


def test_control_characters_reach_neither_the_terminal_nor_the_file() -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\x9b2J what?"
    blocks: list[Table | Paragraph] = [Paragraph(evil), Table(["a"], [[evil]], caption=evil)]
    markdown = Report("Sweep", [Section("Best", blocks)]).markdown()
    for text in (shown(*blocks, width=80), markdown):
        assert not {"\x1b", "\x07", "\x9b"} & set(text) and "what?" in text
