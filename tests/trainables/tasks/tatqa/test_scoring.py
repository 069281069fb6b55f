"""TAT-QA's rule: the official exact match and F1, computed by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from trainables.tasks.tatqa.files import gold_of, read_examples
from trainables.tasks.tatqa.scoring import Answer, comparable, normalized, parse, score, score_text


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Answer(("-22.22",), "percent"), "-0.2222"),
        (Answer(("$1,496.5",), "million"), "1496500000.0000"),
        (Answer(("(12.6)",), "million"), "-12600000.0000"),
        (Answer(("22.22%",)), "0.2222"),
        (Answer(("22.22%",), "percent"), "0.2222"),  # the sign overrides the scale
        (Answer(("0",)), "0.0000"),
        (Answer(("1.239",)), "1.2400"),  # rounded to two decimals before the scale
        (Answer(("2019", "2018")), "2018.0000 2019.0000"),
        (Answer(("cost-plus type",)), "cost-plus type"),
        (Answer(("cost-plus type",), "million"), "cost-plus type million"),
        (Answer(("$0.5 million",)), "500000.0000"),
    ],
)
def test_an_answer_is_compared_as_one_string(answer: Answer, text: str) -> None:
    assert comparable(answer) == text


def test_strings_are_compared_without_case_punctuation_and_articles() -> None:
    assert normalized("The modified, retrospective  Method.") == "modified retrospective method"


@pytest.mark.parametrize(
    ("written", "gold", "em", "strict", "f1"),
    [
        ("-22.22 percent", Answer(("-22.22",), "percent"), True, True, 1.0),
        ("-22.22%", Answer(("-22.22",), "percent"), True, True, 1.0),
        ("(22.22)%", Answer(("-22.22",), "percent"), False, False, 0.0),  # as the official one
        ("-0.2222", Answer(("-22.22",), "percent"), True, False, 1.0),
        ("-22.22", Answer(("-22.22",), "percent"), False, False, 0.0),
        ("22.22 percent", Answer(("-22.22",), "percent"), False, False, 0.0),
        ("1496.5 million", Answer(("$1,496.5",), "million"), True, True, 1.0),
        ("1,496,500,000", Answer(("$1,496.5",), "million"), True, True, 1.0),
        ("1496.5", Answer(("$1,496.5",), "million"), False, False, 0.0),
        ("0", Answer(("0",)), True, True, 1.0),
        ("2018 | 2019", Answer(("2019", "2018")), True, True, 1.0),
        ("2019", Answer(("2019", "2018")), False, False, 0.67),
        ("the cost of sales", Answer(("Cost of sales",)), True, True, 1.0),
        ("cost of revenue", Answer(("Cost of sales",)), False, False, 0.67),
        ("", Answer(("0",)), False, False, 0.0),
        (" | ", Answer(("0",)), False, False, 0.0),
    ],
)
def test_scores_of_what_a_model_writes(
    written: str, gold: Answer, em: bool, strict: bool, f1: float
) -> None:
    found = score_text(written, gold, is_computed=False)
    assert (found.em_acc, found.em_acc_strict, found.f1) == (em, strict, f1)


def test_f1_of_a_computed_answer_is_its_exact_match() -> None:
    near = score(Answer(("5 items",)), Answer(("6 items",)), is_computed=True)
    assert near.f1 == 0.0


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("12.5 percent", [Answer(("12.5 percent",)), Answer(("12.5",), "percent")]),
        ("2019 | 2018", [Answer(("2019", "2018"))]),
        ("73,260 | 57,768 thousand", [
            Answer(("73,260", "57,768 thousand")), Answer(("73,260", "57,768"), "thousand"),
        ]),
        ("percent", [Answer(("percent",))]),
    ],
)  # fmt: skip
def test_a_last_word_that_is_a_scale_may_be_meant_for_all_items(
    text: str, meanings: list[Answer]
) -> None:
    assert parse(text) == meanings


@pytest.mark.parametrize("split", ["dev", "test"])
def test_every_official_gold_answer_written_out_is_right(shared_data: Path, split: str) -> None:
    examples = read_examples(shared_data / "tatqa" / f"{split}.json.gz")
    with gzip.open(shared_data / "tatqa" / f"{split}.json.gz") as file:
        assert len(examples) == sum(len(each["questions"]) for each in json.load(file))
    for example in examples:
        gold, is_computed = gold_of(example)
        found = score_text(gold.text, gold, is_computed=is_computed)
        assert found.em_acc and found.em_acc_strict and found.f1 == 1.0, example.id
