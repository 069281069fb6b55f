"""Prompts: layout, omitted lines, the order of cutting, and unusable templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.errors import InputError
from trainables.tasks.finqa.prompts import PROMPTS as FINQA_PROMPTS
from trainables.tasks.prompts.page_layout import render_values, table_statements
from trainables.tasks.prompts.templates import load_template
from trainables.tasks.task import Prompt
from trainables.tasks.tatqa.prompts import PROMPTS as TATQA_PROMPTS

PROMPTS = {**TATQA_PROMPTS, **FINQA_PROMPTS}  # their default is FinQA's
RECORD = {
    "question": "what was the change in net sales?",
    "pre_text": ["acme reports in millions .", "figures are audited ."],
    "table": [["", "2016", "2015"], ["net sales", "$ 12", "10"], ["tax", "", "1"]],
    "post_text": ["see note 3 ."],
    "evidence": ["the net sales of 2016 is $ 12 ;", "the net sales of 2015 is 10 ;"],
}


def fill(name: str, context: str = "full") -> Prompt:
    return load_template(name, PROMPTS).fill(render_values(RECORD, context=context))


def digest(name: str) -> str:
    return load_template(name, PROMPTS).digest


def test_statements_are_a_line_for_the_columns_and_one_per_row() -> None:
    assert fill("statements").text == (
        "acme reports in millions . figures are audited .\n"
        "columns: 2016; 2015\n- net sales: $ 12; 10\n- tax: ; 1\n"
        "see note 3 .\n"
        "Question: what was the change in net sales?"
    )


def test_the_default_prompt_is_instructions_text_table_text_question_in_this_order() -> None:
    text = fill("default").text
    parts = ["number", "acme reports", "net sales | $ 12 | 10", "see note 3 .", "Question: what"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)
    assert "{" not in text


@pytest.mark.parametrize("name", PROMPTS)
def test_evidence_stands_in_the_place_of_the_page(name: str) -> None:
    text = fill(name, "evidence").text
    assert "the net sales of 2016 is $ 12 ;\nthe net sales of 2015 is 10 ;" in text
    assert "acme" not in text
    assert "note 3" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_ends_with_its_question_and_its_reply_is_the_marker(name: str) -> None:
    prompt = fill(name)
    assert prompt.text.endswith(f"Question: {RECORD['question']}")
    assert prompt.reply == "Answer:"


def test_a_line_whose_only_placeholder_is_empty_drops_out_with_its_newline(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Before: {pre_text}\nFacts: {evidence}\n\n{table} {evidence}\n{question}\n")
    text = load_template(str(file), PROMPTS).fill(render_values(RECORD, context="evidence")).text
    assert text == (
        "Facts: the net sales of 2016 is $ 12 ;\nthe net sales of 2015 is 10 ;\n\n"
        " the net sales of 2016 is $ 12 ;\nthe net sales of 2015 is 10 ;\n"
        "what was the change in net sales?"
    )


@pytest.mark.parametrize(
    ("name", "context", "order"),
    [
        ("default", "full", [("post_text", "end"), ("pre_text", "start"), ("table", "end")]),
        (
            "statements",
            "full",
            [("post_text", "end"), ("pre_text", "start"), ("statements", "end")],
        ),
        ("default", "evidence", [("evidence", "end")]),
    ],
)
def test_text_after_the_table_goes_first_then_before_it_then_the_table(
    name: str, context: str, order: list[tuple[str, str]]
) -> None:
    values = render_values(RECORD, context=context)
    prompt = load_template(name, PROMPTS).fill(values)
    cut = [(prompt.pieces[each.piece], each.side) for each in prompt.cuts]
    assert cut == [(values[placeholder], side) for placeholder, side in order]


def test_a_table_of_one_row_keeps_its_cells_and_an_empty_one_is_nothing() -> None:
    assert table_statements([["other income", "$ 5"]]) == "other income: $ 5"
    assert table_statements([]) == ""


def test_a_row_without_cells_says_nothing() -> None:
    assert table_statements([[], ["", "2014"], [], ["cash", "5"]]) == "columns: 2014\n- cash: 5"
    assert table_statements([[], []]) == ""


def test_a_value_with_braces_is_not_a_placeholder() -> None:
    record = {**RECORD, "question": "what is {table}?"}
    assert (
        load_template("short", PROMPTS)
        .fill(render_values(record, context="full"))
        .text.endswith("Question: what is {table}?")
    )


def test_the_digest_follows_the_text_and_not_the_path(tmp_path: Path) -> None:
    assert len({digest(name) for name in PROMPTS}) == len(PROMPTS)
    copy = tmp_path / "copy.txt"
    copy.write_text(PROMPTS["short"] + "\n")
    assert digest(str(copy)) == digest("short")
    copy.write_text(PROMPTS["short"] + "?")
    assert digest(str(copy)) != digest("short")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{pre_text}\n{tabel}\n{question}", r"own.txt:2: unknown placeholder \{tabel\}.*'table'"),
        ("{pre_text}", r"no \{question\}"),
        ("", r"no \{question\}"),
    ],
)
def test_a_template_at_fault_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "own.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_template(str(file), PROMPTS)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="can't be read"):
        load_template(str(file), PROMPTS)


@pytest.mark.parametrize("name", ["defualt", "no/such/file.txt", "Answer {question}. " * 500, ""])
def test_neither_a_name_nor_a_file(name: str) -> None:
    with pytest.raises(InputError, match="neither a named prompt nor a template file"):
        load_template(name, PROMPTS)
