"""The units of a page: sentences, and rows of the table as FinQA's annotation has them."""

from __future__ import annotations

from trainables.tasks.retrieval.units import page_units, places_of, row_statements, sentences

TABLE = [["in millions", "2016", "2015"], ["net sales", "$ 12", "10"], [], ["costs", "8"]]


def test_a_row_says_the_name_the_column_and_the_cell() -> None:
    assert row_statements(TABLE) == [
        "in millions the net sales of 2016 is $ 12 ; the net sales of 2015 is 10 ;",
        "in millions the costs of 2016 is 8 ;",
    ]
    assert row_statements([]) == row_statements([[]]) == row_statements([["", "2016"]]) == []


def test_several_rows_of_headers_name_a_column_together() -> None:
    table = [["", "Years ended", ""], ["", "2019", "2018"], ["Sales", "5", "4"]]
    assert row_statements(table, header_rows=2) == [
        "the Sales of Years ended 2019 is 5 ; the Sales of 2018 is 4 ;"
    ]


def test_a_page_is_its_text_around_its_rows_without_what_holds_no_word() -> None:
    record = {"pre_text": ["a .", ".", "b ."], "table": TABLE[:2], "post_text": ["", "c ."]}
    assert page_units(record) == ("a .", "b .", row_statements(TABLE)[0], "c .")


def test_each_fact_has_the_places_of_the_units_that_are_it() -> None:
    page = ("Net  sales rose .", "costs fell .", "net sales rose.")
    assert places_of(["net sales rose .", "nothing", "costs fell ."], page) == [
        frozenset({0, 2}),
        frozenset(),
        frozenset({1}),
    ]


def test_sentences_end_at_a_mark_or_a_line() -> None:
    assert sentences("Sales rose 3.5%. Why? \n\nA table\nNote 3.") == [
        "Sales rose 3.5%.",
        "Why?",
        "A table",
        "Note 3.",
    ]
