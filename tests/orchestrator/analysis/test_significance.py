"""Intervals and tests against values known in closed form."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.analysis.significance import any_difference, compare, mcnemar, wilson
from tests.orchestrator.run_builder import outcomes, question_rows


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


def test_mcnemar_is_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar(4, 4) == 1.0


def test_only_questions_that_both_answered_are_compared() -> None:
    better = compare(question_rows(outcomes(40)), question_rows(outcomes(20, 90)))
    assert better.count == 90 and (better.only_a, better.only_b) == (20, 0)
    assert better.difference == pytest.approx(20 / 90)
    assert better.p_value == pytest.approx(2 / 2**20) and better.verdict == "better"
    assert better.low < better.difference < better.high
    worse = compare(question_rows(outcomes(20)), question_rows(outcomes(40)))
    assert worse.verdict == "worse" and worse.difference == pytest.approx(-0.2)


def test_a_difference_that_is_not_significant_is_a_tie() -> None:
    five = compare(question_rows(outcomes(25)), question_rows(outcomes(20)))
    assert five.p_value == pytest.approx(0.0625) and five.verdict == "tie"
    assert compare(question_rows(outcomes(9)), question_rows(outcomes(9))).verdict == "tie"


def test_nothing_in_common_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="no question in common"):
        compare(question_rows([1]), [])


def test_whether_any_of_several_trials_differs() -> None:
    generator = random.Random(0)
    alike = [question_rows([int(generator.random() < 0.5) for _ in range(200)]) for _ in range(6)]
    p_value = any_difference(alike)
    assert p_value is not None and p_value > 0.05
    p_value = any_difference([*alike, question_rows(outcomes(170, 200))])
    assert p_value is not None and p_value < 0.01


def test_two_near_copies_among_others_are_no_difference() -> None:
    """Two trials that share their four right answers of 442, and eight that have none."""
    copies = [question_rows(outcomes(4, 442)) for _ in range(2)]
    p_value = any_difference([*copies, *(question_rows(outcomes(0, 442)) for _ in range(8))])
    assert p_value == 1.0


def test_two_trials_are_compared_exactly_and_one_not_at_all() -> None:
    two = [question_rows(outcomes(right)) for right in (25, 20)]
    assert any_difference(two) == pytest.approx(0.0625)
    assert any_difference(two[:1]) is None and any_difference([]) is None
    assert any_difference([question_rows([0] * 9)] * 3) == 1.0
