"""Intervals and tests against values known in closed form."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from orchestrator.analysis.significance import (
    MCNEMAR,
    PAIRED_T,
    any_difference,
    compare,
    compare_with_best,
    half_width_95,
    holm,
    mcnemar,
    wilson,
)
from orchestrator.runs.predictions import Predictions
from tests.orchestrator.run_builder import outcomes, question_rows
from trainables.spec.metric import MetricSpec
from trainables.tasks.exact_match import EM_ACC

Row = dict[str, Any]


def of(right: Sequence[int]) -> Predictions:
    return Predictions.of_rows(question_rows(right))


def test_wilson_gives_the_published_interval() -> None:
    low, high = wilson(81 / 263, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0.0, 20)[0] == 0.0 and wilson(1.0, 20)[1] == 1.0
    assert wilson(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("count", [1, 7, 100, 883])
def test_wilson_is_scipys(count: int) -> None:
    for right in range(count + 1):
        low, high = binomtest(right, count).proportion_ci(0.95, "wilson")
        assert wilson(right / count, count) == pytest.approx((low, high), abs=1e-12)


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
    better = compare(of(outcomes(40)), of(outcomes(20, 90)), metric=EM_ACC)
    assert better.count == 90 and (better.only_a, better.only_b) == (20, 0)
    assert better.difference == pytest.approx(20 / 90)
    assert better.p_value == pytest.approx(2 / 2**20) and better.verdict == "better"
    assert better.low < better.difference < better.high
    worse = compare(of(outcomes(20)), of(outcomes(40)), metric=EM_ACC)
    assert worse.verdict == "worse" and worse.difference == pytest.approx(-0.2)


def test_a_difference_that_is_not_significant_is_a_tie() -> None:
    five = compare(of(outcomes(25)), of(outcomes(20)), metric=EM_ACC)
    assert five.p_value == pytest.approx(0.0625) and five.verdict == "tie"
    nine = of(outcomes(9))
    assert compare(nine, nine, metric=EM_ACC).verdict == "tie"


def test_nothing_in_common_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="no question in common"):
        compare(of([1]), of([]), metric=EM_ACC)


def test_whether_any_of_several_trials_differs() -> None:
    generator = random.Random(0)
    alike = [of([int(generator.random() < 0.5) for _ in range(200)]) for _ in range(6)]
    p_value = any_difference(alike, metric=EM_ACC)
    assert p_value is not None and p_value > 0.05
    p_value = any_difference([*alike, of(outcomes(170, 200))], metric=EM_ACC)
    assert p_value is not None and p_value < 0.01


def test_two_near_copies_among_others_are_no_difference() -> None:
    """Two trials that share their four right answers of 442, and eight that have none."""
    copies = [of(outcomes(4, 442)) for _ in range(2)]
    none_right = (of(outcomes(0, 442)) for _ in range(8))
    p_value = any_difference([*copies, *none_right], metric=EM_ACC)
    assert p_value == 1.0


def test_two_trials_are_compared_exactly_and_one_not_at_all() -> None:
    two = [of(outcomes(right)) for right in (25, 20)]
    assert any_difference(two, metric=EM_ACC) == pytest.approx(0.0625)
    assert any_difference(two[:1], metric=EM_ACC) is None
    assert any_difference([], metric=EM_ACC) is None
    assert any_difference([of([0] * 9)] * 3, metric=EM_ACC) == 1.0


ERROR = MetricSpec("error", "error", "letters", "minimize", ".2f", per_question_key="error")


def errors(*values: float) -> Predictions:
    rows: list[Row] = [{"id": f"q{place}", "error": value} for place, value in enumerate(values)]
    return Predictions.of_rows(rows)


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
    found = compare(of(outcomes(20)), of(outcomes(40)), metric=wrong)
    assert found.verdict == "better" and found.test == MCNEMAR


def test_a_metric_that_is_not_kept_for_each_question_can_not_be_compared() -> None:
    summary_only = MetricSpec("perplexity", "perplexity", direction="minimize")
    with pytest.raises(ValueError, match="no question in common"):
        compare(errors(1.0), errors(2.0), metric=summary_only)
    assert any_difference([errors(1.0), errors(2.0)], metric=summary_only) is None


def brute_force(a: Sequence[Row], b: Sequence[Row]) -> tuple[float, int, int]:
    """The p-value by scipy's binomial test, and the questions that one alone has right."""
    rights = [
        {row["id"]: bool(row["em_acc"]) for row in rows if row["em_acc"] is not None}
        for rows in (a, b)
    ]
    common = rights[0].keys() & rights[1].keys()
    only_a = sum(rights[0][question] and not rights[1][question] for question in common)
    only_b = sum(rights[1][question] and not rights[0][question] for question in common)
    differing = only_a + only_b
    return binomtest(only_a, differing).pvalue if differing else 1.0, only_a, only_b


def some_rows(draw: random.Random, count: int) -> list[Row]:
    """Answers to some of the questions in any order; a few were not measured."""
    skill = draw.random()
    rows = question_rows(int(draw.random() < skill) for _ in range(count))
    for row in draw.sample(rows, k=count // 10):
        row["em_acc"] = None
    return draw.sample(rows, k=draw.randint(count // 2, count))


@pytest.mark.parametrize("seed", range(12))
def test_comparisons_are_those_of_one_binomial_test_for_each_pair(seed: int) -> None:
    draw = random.Random(seed)
    rows = [some_rows(draw, count=draw.choice((10, 60, 300))) for _ in range(draw.randint(2, 9))]
    best, *others = [Predictions.of_rows(each) for each in rows]
    expected = [brute_force(rows[0], each) for each in rows[1:]]
    for other, (p_value, only_a, only_b) in zip(others, expected, strict=True):
        found = compare(best, other, metric=EM_ACC)
        assert (found.only_a, found.only_b) == (only_a, only_b)
        assert found.p_value == pytest.approx(p_value, rel=1e-9)
    ranked = sorted(p_value for p_value, _, _ in expected)
    adjusted = [
        max(
            min(1.0, (len(ranked) - rank) * smaller)
            for rank, smaller in enumerate(ranked)
            if smaller <= p_value
        )
        for p_value, _, _ in expected
    ]
    held = compare_with_best(best, others, metric=EM_ACC)
    assert [each.p_value for each in held if each] == pytest.approx(adjusted, rel=1e-9)
    assert {each.comparisons for each in held if each} == {len(others)}


@pytest.mark.parametrize("seed", range(12))
def test_any_difference_is_the_least_of_all_pairs(seed: int) -> None:
    draw = random.Random(seed)
    rows = [some_rows(draw, count=40) for _ in range(draw.randint(2, 9))]
    measured = [{row["id"] for row in each if row["em_acc"] is not None} for each in rows]
    common = set.intersection(*measured)
    shared = [[row for row in each if row["id"] in common] for each in rows]
    p_values = [brute_force(one, other)[0] for one, other in itertools.combinations(shared, 2)]
    expected = min(1.0, len(p_values) * min(p_values)) if common else None
    found = any_difference([Predictions.of_rows(each) for each in rows], metric=EM_ACC)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_numbers_are_compared_as_scipy_compares_each_pair(seed: int) -> None:
    draw = numpy.random.default_rng(seed)
    count, trials = int(draw.integers(2, 60)), int(draw.integers(2, 9))
    numbers = draw.normal(size=(trials, count)) + draw.normal(size=count)
    pairs = itertools.combinations(numbers, 2)
    expected = [float(ttest_rel(one, other).pvalue) for one, other in pairs]
    many = [errors(*each.tolist()) for each in numbers]
    found = any_difference(many, metric=ERROR)
    assert found == pytest.approx(min(1.0, len(expected) * min(expected)), rel=1e-9)
    with_first = compare_with_best(many[0], many[1:], metric=ERROR)
    adjusted = pytest.approx(holm(expected[: trials - 1]), rel=1e-9)
    assert [each.p_value for each in with_first if each] == adjusted


def test_every_binomial_test_of_up_to_60_questions_is_scipys() -> None:
    for differing in range(1, 61):
        for only_a in range(differing + 1):
            expected = binomtest(only_a, differing).pvalue
            assert mcnemar(only_a, differing - only_a) == pytest.approx(expected, rel=1e-9)


def test_holm_adjusts_each_p_value_by_its_rank() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([0.04]) == [0.04] and holm([]) == []


def test_a_trial_that_shares_no_question_with_the_best_is_no_comparison() -> None:
    elsewhere = Predictions.of_rows([{"id": "another", "em_acc": 1}])
    others = [of(outcomes(20)), elsewhere, of(outcomes(59))]
    first, second, third = compare_with_best(of(outcomes(60)), others, metric=EM_ACC)
    assert second is None
    assert first is not None and first.verdict == "better" and first.comparisons == 2
    assert third is not None and third.verdict == "tie" and third.p_value == 1.0


def test_one_of_many_comparisons_needs_more_to_be_a_difference() -> None:
    """Six questions that the best alone has right are a difference from one trial, not of five."""
    alone = compare_with_best(of(outcomes(26)), [of(outcomes(20))], metric=EM_ACC)
    assert [found.verdict for found in alone if found] == ["better"]
    five = [of(outcomes(20 + more)) for more in range(5)]
    several = compare_with_best(of(outcomes(26)), five, metric=EM_ACC)
    assert [found.verdict for found in several if found] == ["tie"] * 5


def test_a_difference_is_found_among_equal_trials_in_at_most_5_percent_of_sweeps() -> None:
    draw, found, sweeps = numpy.random.default_rng(0), 0, 300
    for _ in range(sweeps):
        right = draw.random((10, 100)) < draw.random(100)  # some questions are harder
        p_value = any_difference([of(each.astype(int).tolist()) for each in right], metric=EM_ACC)
        found += p_value is not None and p_value < 0.05
    assert found <= 0.05 * sweeps


def test_the_trial_that_is_best_in_truth_ties_with_the_best_seen() -> None:
    """In at most 5% of sweeps it does not: two equal trials, others equal to them or far worse."""
    draw, lost, sweeps = numpy.random.default_rng(0), 0, 300
    for _ in range(sweeps):
        worse = draw.choice((0.0, 1.5), size=12)
        worse[:2] = 0.0
        difficulty = draw.normal(0, 1.5, size=200)
        right = draw.random((12, 200)) < 1 / (1 + numpy.exp(worse[:, None] + difficulty))
        order = sorted(range(12), key=lambda trial: -right[trial].sum())
        trials = [of(right[trial].astype(int).tolist()) for trial in order]
        found = [None, *compare_with_best(trials[0], trials[1:], metric=EM_ACC)][order.index(0)]
        lost += found is not None and found.verdict == "better"
    assert lost <= 0.05 * sweeps
