"""The bases' tokenizer: it decodes any text unchanged and has one token per generator word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base_models.tokenizer import build, vocabulary
from trainables.tasks.finqa import synthetic


@pytest.mark.parametrize(
    "text",
    [
        "Ünï $ 5,735 (32)%\n",
        "  a\t\tb ▁ 😀\r\n\n",
        " -5 - 5--3 1e-5 0.25 -0.98 .5",
        "columns: 2018; 2017\n- revenue: 57; 32\n",
        "",
    ],
)
def test_text_comes_back_unchanged(text: str) -> None:
    tokenizer = build()

    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_unchanged(text: str) -> None:
    assert _TOKENIZER.decode(_TOKENIZER.encode(text)) == text


def test_each_word_and_number_of_a_record_is_one_token() -> None:
    (record,) = synthetic.records(
        pool="finetuning", kinds=["decline"], count=1, seed=0, split="train"
    )
    text = f"Question: {record['qa']['question']}\nAnswer: {record['qa']['answer']}\n"

    assert _TOKENIZER.tokenize(text)[:4] == ["Question", ":", " what", " was"]
    assert _TOKENIZER.tokenize(text)[-2:] == [f" {record['qa']['answer']}", "\n"]


def test_no_piece_comes_twice() -> None:
    pieces = vocabulary()

    assert len(set(pieces)) == len(pieces)


_TOKENIZER = build()
