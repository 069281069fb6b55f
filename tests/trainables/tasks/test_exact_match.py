"""The exact-match rule: what is right, what is wrong, and that no prediction raises."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.tasks import exact_match
from trainables.tasks.exact_match import Number, parse, score

ROUNDED = st.floats(min_value=-1e12, max_value=1e12).map(lambda value: round(value, 5))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return [json.loads(line) for line in text.splitlines()]


def test_the_published_cases(shared_data: Path) -> None:
    for case in read_jsonl(shared_data / "finqa" / "emacc_cases.jsonl"):
        found = score(case["pred"], case["gold"])
        assert (found.em_acc_strict, found.em_acc) == (case["strict"], case["round"]), case


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_gold_fed_back_is_always_right(shared_data: Path, split: str) -> None:
    golds = [each["exe_ans"] for each in read_jsonl(shared_data / "finqa" / f"{split}.jsonl.gz")]
    flags = [score(exact_match.answer_text(gold), gold).flags() for gold in golds]
    flags += [
        exact_match.score_completion(f" {exact_match.answer_text(gold)}", gold).flags()
        for gold in golds
    ]
    measured = exact_match.rates(flags)
    assert measured["em_acc"] == measured["em_acc_strict"] == measured["em_acc_numeric"] == 1.0


@pytest.mark.parametrize(
    ("prediction", "value"),
    [
        ("94", 94.0),
        ("94.", 94.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("+5", 5.0),
        ("- 5", -5.0),
        ("\u22125", -5.0),
        ("\u22120.0", 0.0),
        ("$94", 94.0),
        ("$ 94 million", 94.0),
        ("-$32", -32.0),
        ("$-32", -32.0),
        ("(32)", -32.0),
        ("( 32 )", -32.0),
        ("$(32)", -32.0),
        ("($32)", -32.0),
        ("-(32)", -32.0),
        ("(-32)", -32.0),
        ("(32", 32.0),
        ("32)", 32.0),
        ("94 (2018)", 94.0),
        ("(5%)", -0.05),
        ("(5)%", -0.05),
        ("5 %", 0.05),
        ("5percent", 0.05),
        ("5 Percent", 0.05),
        ("1,234", 1234.0),
        ("1,234,567.5", 1234567.5),
        ("1,234.50%", 12.345),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("1e\u22123", 0.001),
        ("the change was 94 million in 2016", 94.0),
        ("94, which is up", 94.0),
        ("**94**", 94.0),
        ("94\u00a0%", 0.94),
    ],
)
def test_a_span_is_its_first_number(prediction: str, value: float) -> None:
    found = parse(prediction)
    assert isinstance(found, Number)
    assert found.value == value


@pytest.mark.parametrize(
    "prediction", ["", "  \n ", "n/a", "nan", "inf", "north", "none", "nothing"]
)
def test_a_span_without_a_word_or_number_is_unreadable(prediction: str) -> None:
    found = score(prediction, 0.0)
    assert not found.parsed
    assert not found.em_acc


@pytest.mark.parametrize("prediction", ["1,23", "1,2345", "12,34,567", "1234,567", ",5,6"])
def test_malformed_thousands_commas_are_never_read_as_the_whole_number(prediction: str) -> None:
    without_commas = float(prediction.replace(",", ""))
    assert not score(prediction, without_commas).em_acc


@pytest.mark.parametrize(
    "prediction",
    ["yes", "Yes", "YES.", "**Yes**", "_yes_", '"yes"', " yes, because 5 > 4", "yes.no", "- yes"],
)
def test_a_span_that_starts_with_yes_is_that_word(prediction: str) -> None:
    assert score(prediction, "yes").em_acc_strict
    assert not score(prediction, "no").em_acc
    assert not score(prediction, 5.0).em_acc


@pytest.mark.parametrize("prediction", ["north", "yesterday", "none", "noé", "not 1", "1 yes", "0"])
def test_a_word_needs_its_boundary_and_a_number_never_equals_it(prediction: str) -> None:
    assert not score(prediction, "yes").em_acc
    assert not score(prediction, "no").em_acc


@pytest.mark.parametrize(
    ("prediction", "gold", "strict", "right"),
    [
        ("94", 94.0, True, True),
        ("94", 94.4, False, True),  # the gold rounds to it, within 1%
        ("94", 94.6, False, False),
        ("94.5", 94.0, False, False),  # never the reverse
        ("0.5", 0.506, False, False),  # less than half a unit, but beyond 1%
        ("101", 100.5, False, True),  # exactly half a unit
        ("99", 100.0, False, False),  # within 1%, but not what the gold rounds to
        ("0.09371", 0.09371, True, True),
        ("9.371%", 0.09371, True, True),
        ("9.37%", 0.09371, False, True),
        ("9.37", 0.09371, False, False),
        ("-9.37%", 0.09371, False, False),
        ("0", 0.0, True, True),
        ("-0.0", 0.0, True, True),
        ("0.000001", 0.0, True, True),
        ("0.001", 0.0, False, False),
        ("0", 0.3, False, False),
        ("1", 0.93, False, False),
        ("4e3", 4021.0, False, True),
        ("4e3", 4060.0, False, False),
        ("0.3333", 0.33333, False, True),
        ("0.33333", 0.33333, True, True),
        ("22556579533", 22556579533.35, False, True),
        ("-0", -0.0, True, True),
    ],
)
def test_only_a_gold_that_rounds_to_what_was_printed_is_right(
    prediction: str, gold: float, strict: bool, right: bool
) -> None:
    found = score(prediction, gold)
    assert (found.em_acc_strict, found.em_acc) == (strict, right)


@pytest.mark.parametrize(
    ("prediction", "span"),
    [
        ("Answer: 94", " 94"),
        ("5 and 6.\nAnswer: 94\nas said", " 94"),
        ("Answer: 1\nAnswer: 2 (3)", " 2 (3)"),
        ("Answer:\n94", ""),  # to the end of that line
        ("Answer:", ""),
        ("**Answer:** 94\r\n95", "** 94"),
        ("\n\n 94\n95", "94"),
        ("94", "94"),
    ],
)
def test_the_span_follows_the_last_marker_or_is_the_first_line(prediction: str, span: str) -> None:
    assert exact_match.prediction_span(prediction) == span


def test_a_required_marker_that_is_missing_makes_the_answer_wrong_and_is_counted() -> None:
    missing = score("94", 94.0, marker_required=True)
    assert missing.no_marker
    assert not missing.em_acc
    present = score("so\nAnswer: 94", 94.0, marker_required=True)
    assert present.em_acc
    assert not present.no_marker
    assert not score("94", 94.0).no_marker


def test_after_our_own_prompt_the_whole_first_line_is_the_span() -> None:
    assert exact_match.score_completion(" 94\nAnswer: 12", 94.0).em_acc


@pytest.mark.parametrize(
    ("prediction", "gold", "counted"),
    [
        ("9.37", 0.09371, True),
        ("9.371", 0.09371, True),
        ("9.37%", 0.09371, False),  # right
        ("937", 0.09371, False),
        ("0.09371", 9.371, False),  # only this direction
        ("-9.37", 0.09371, False),
        ("2.5%", 2.5, False),
        ("0", 0.0, False),
        ("yes", 0.01, False),
        ("100", "yes", False),
    ],
)
def test_a_bare_percentage_is_counted_but_wrong(
    prediction: str, gold: float | str, counted: bool
) -> None:
    found = score(prediction, gold)
    assert found.percent_scale is counted
    assert not (found.percent_scale and found.em_acc)


@pytest.mark.parametrize(
    "prediction",
    [
        "1e999",
        "-1e999%",
        "1e-999999999999999999999",
        "1e" + "9" * 6000,
        "9" * 6000,
        "0." + "0" * 6000 + "1",
        "9" * 300 + "," + "999",
        " " * 50_000 + "x",
        "(" * 50_000,
        "-$ " * 20_000,
        "1," * 20_000,
        "_" * 50_000,
        "\ud800 5",
    ],
)
def test_extreme_predictions_are_wrong_at_once_and_never_raise(prediction: str) -> None:
    start = time.perf_counter()
    assert not score(prediction, 94.0).em_acc
    assert time.perf_counter() - start < 2.0


def test_an_exponent_of_zeros_is_just_zero() -> None:
    assert score("5e" + "0" * 5000, 5.0).em_acc


@given(ROUNDED)
def test_the_target_of_any_gold_scores_under_both_measures(gold: float) -> None:
    text = exact_match.answer_text(gold)
    found = score(text, gold)
    assert found.em_acc_strict
    assert found.em_acc
    assert text != "-0"
    assert not (text.endswith("0") and "." in text)


@given(ROUNDED, ROUNDED)
def test_strict_is_equality_after_rounding_to_five_decimals(value: float, gold: float) -> None:
    assert score(f"{value:.5f}", gold).em_acc_strict == (value == gold)


@given(ROUNDED.filter(lambda gold: abs(gold) > 1e-3), st.integers(min_value=0, max_value=4))
def test_a_gold_rounded_to_fewer_decimals_is_right_within_one_percent(
    gold: float, decimals: int
) -> None:
    printed = f"{gold:.{decimals}f}"
    near = abs(float(printed) - gold) <= 0.0099 * abs(gold)
    far = abs(float(printed) - gold) > 0.0101 * abs(gold)
    found = score(printed, gold).em_acc
    assert (not near) or found
    assert not (far and found and not score(printed, gold).em_acc_strict)


@given(ROUNDED.filter(lambda gold: abs(gold) >= 1e-5))
def test_neither_the_sign_nor_the_scale_is_forgiven(gold: float) -> None:
    assert not score(exact_match.answer_text(-gold), gold).em_acc
    assert not score(exact_match.answer_text(gold * 100), gold).em_acc


@given(st.text(max_size=80), st.one_of(ROUNDED, st.sampled_from(["yes", "no"])))
def test_no_text_makes_the_rule_raise_and_strict_implies_right(
    text: str, gold: float | str
) -> None:
    found = score(text, gold)
    assert found.em_acc or not found.em_acc_strict
    assert not (found.em_acc and not found.parsed)


@given(
    st.text(alphabet="0123456789.,()-\u2212$% eE+percntAswyo:\n", max_size=30),
    st.sampled_from([0.0, 1.0, -5.0, 0.05, 1234.0]),
)
def test_texts_that_look_like_numbers_never_make_it_raise(text: str, gold: float) -> None:
    assert score(text, gold).em_acc in (True, False)


@given(st.integers(min_value=0, max_value=10**12))
def test_thousands_commas_change_nothing(value: int) -> None:
    assert parse(f"{value:,}") == parse(str(value))


@pytest.mark.parametrize("gold", [math.nan, math.inf, "maybe", "Yes", ""])
def test_a_gold_that_is_no_answer_is_refused(gold: float | str) -> None:
    with pytest.raises(ValueError, match="gold"):
        score("94", gold)


def test_rates_are_over_all_questions_and_the_numeric_rate_over_numeric_golds() -> None:
    scored = [
        score("94", 94.0),
        score("9.37", 0.09371),
        score("yes", "yes"),
        score(None, 1.0),
    ]
    measured = exact_match.rates([each.flags() for each in scored])
    assert measured == {
        "em_acc": 0.5,
        "em_acc_strict": 0.5,
        "no_marker_rate": 0.0,
        "percent_scale_rate": 0.25,
        "unparsed_rate": 0.25,
        "em_acc_numeric": 1 / 3,
    }
    assert "em_acc_numeric" not in exact_match.rates([score("yes", "yes").flags()])
    with pytest.raises(ValueError, match="no questions"):
        exact_match.rates([])


def test_a_programs_result_counts_with_all_its_decimals() -> None:
    assert exact_match.score_value(94.0, 94.0).em_acc_strict
    assert not exact_match.score_value(94.0, 94.3).em_acc  # a person's "94" would be right
    assert exact_match.score_value("yes", "yes").em_acc
    assert not exact_match.score_value("yes", 1.0).em_acc
    assert exact_match.score_value(9.371, 0.09371).percent_scale
    assert not exact_match.score_value(None, 0.0).em_acc
