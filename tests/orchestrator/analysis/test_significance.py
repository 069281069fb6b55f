"""Intervals and tests against values known in closed form."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.significance import (
    MCNEMAR,
    PAIRED_T,
    any_difference,
    compare,
    half_width_95,
    mcnemar,
    wilson,
)
from tests.orchestrator.run_builder import outcomes, question_rows
from trainables.spec.metric import MetricSpec
from trainables.tasks.exact_match import EM_ACC


def test_wilson_gives_the_published_interval() -> None:
    low, high = wilson(81 / 263, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0.0, 20)[0] == 0.0 and wilson(1.0, 20)[1] == 1.0
    assert wilson(0.0, 0) == (0.0, 1.0)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_share_within_zero_and_one(count: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, count)) / count
    low, high = wilson(share, count)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("count", "points"), [(1147, 2.1), (200, 4.9)])
def test_the_noise_at_fifteen_percent(count: int, points: float) -> None:
    assert round(100 * half_width_95(0.15, count), 1) == points


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(4, 4) == 1.0


def test_only_questions_that_both_answered_are_compared() -> None:
    better = compare(question_rows(outcomes(40)), question_rows(outcomes(20, 90)), metric=EM_ACC)
    assert better.count == 90 and (better.only_a, better.only_b) == (20, 0)
    assert better.difference == pytest.approx(20 / 90)
    assert better.p_value == pytest.approx(2 / 2**20) and better.verdict == "better"
    assert better.low < better.difference < better.high
    worse = compare(question_rows(outcomes(20)), question_rows(outcomes(40)), metric=EM_ACC)
    assert worse.verdict == "worse" and worse.difference == pytest.approx(-0.2)


def test_a_difference_that_is_not_significant_is_a_tie() -> None:
    five = compare(question_rows(outcomes(25)), question_rows(outcomes(20)), metric=EM_ACC)
    assert five.p_value == pytest.approx(0.0625) and five.verdict == "tie"
    nine = question_rows(outcomes(9))
    assert compare(nine, nine, metric=EM_ACC).verdict == "tie"


def test_nothing_in_common_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="no question in common"):
        compare(question_rows([1]), [], metric=EM_ACC)


def test_whether_any_of_several_trials_differs() -> None:
    generator = random.Random(0)
    alike = [question_rows([int(generator.random() < 0.5) for _ in range(200)]) for _ in range(6)]
    p_value = any_difference(alike, metric=EM_ACC)
    assert p_value is not None and p_value > 0.05
    p_value = any_difference([*alike, question_rows(outcomes(170, 200))], metric=EM_ACC)
    assert p_value is not None and p_value < 0.01


def test_two_near_copies_among_others_are_no_difference() -> None:
    """Two trials that share their four right answers of 442, and eight that have none."""
    copies = [question_rows(outcomes(4, 442)) for _ in range(2)]
    none_right = (question_rows(outcomes(0, 442)) for _ in range(8))
    p_value = any_difference([*copies, *none_right], metric=EM_ACC)
    assert p_value == 1.0


def test_two_trials_are_compared_exactly_and_one_not_at_all() -> None:
    two = [question_rows(outcomes(right)) for right in (25, 20)]
    assert any_difference(two, metric=EM_ACC) == pytest.approx(0.0625)
    assert any_difference(two[:1], metric=EM_ACC) is None
    assert any_difference([], metric=EM_ACC) is None
    assert any_difference([question_rows([0] * 9)] * 3, metric=EM_ACC) == 1.0


ERROR = MetricSpec("error", "error", "letters", "minimize", ".2f", per_question_key="error")


def errors(*values: float) -> list[dict[str, float | str]]:
    return [{"id": f"q{place}", "error": value} for place, value in enumerate(values)]


def test_numbers_of_each_question_are_compared_by_students_t() -> None:
    """Student's sleep data (1908): t = -4.0621, p = 0.00283, 95% of the mean -2.46 to -0.70."""
    one = errors(0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
    other = errors(1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)
    found = compare(one, other, metric=ERROR)
    assert found.difference == pytest.approx(-1.58)
    assert (round(found.low, 2), round(found.high, 2)) == (-2.46, -0.70)
    assert round(found.p_value, 5) == 0.00283 and found.test == PAIRED_T
    assert found.verdict == "better"  # less of an error
    assert compare(other, one, metric=ERROR).verdict == "worse"
    p_value = any_difference([one, other, one], metric=ERROR)
    assert p_value == pytest.approx(3 * found.p_value)


@pytest.mark.parametrize(("count", "p_value"), [(1, 1.0), (2, 0.5), (10, 2**-9)])
def test_differences_without_spread_show_the_more_the_more_there_are(
    count: int, p_value: float
) -> None:
    found = compare(errors(*[1.0] * count), errors(*[2.0] * count), metric=ERROR)
    assert found.p_value == p_value and (found.low, found.high) == (-1.0, -1.0)
    assert compare(errors(*[1.0] * count), errors(*[1.0] * count), metric=ERROR).p_value == 1.0


def test_of_a_share_that_is_to_be_small_less_is_better() -> None:
    wrong = replace(EM_ACC, name="wrong", direction="minimize")
    found = compare(question_rows(outcomes(20)), question_rows(outcomes(40)), metric=wrong)
    assert found.verdict == "better" and found.test == MCNEMAR


def test_a_metric_that_is_not_kept_for_each_question_can_not_be_compared() -> None:
    summary_only = MetricSpec("perplexity", "perplexity", direction="minimize")
    with pytest.raises(ValueError, match="no question in common"):
        compare(errors(1.0), errors(2.0), metric=summary_only)
    assert any_difference([errors(1.0), errors(2.0)], metric=summary_only) is None
