"""Values of metrics are printed as their task declares."""

from __future__ import annotations

import pytest

from orchestrator.formatting import (
    MISSING,
    counted,
    difference_unit,
    format_bare,
    format_difference,
    format_measured,
    format_metric,
    format_signed,
    is_or_are,
)
from trainables.spec.metric import EVAL_LOSS, TRAIN_PEAK_MEMORY, MetricSpec
from trainables.tasks.exact_match import EM_ACC

LETTERS = MetricSpec("off", "distance", "letters", "minimize", ".2f")
FLOPS = MetricSpec("train_flops", "train FLOPs", "FLOP", "minimize", ".3g")


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (EM_ACC, 0.6149, "61.5%"),
        (EM_ACC, 1.0, "100.0%"),
        (LETTERS, 2.5, "2.50 letters"),
        (EVAL_LOSS, 1.23456, "1.235"),
        (TRAIN_PEAK_MEMORY, 2**26, "64.0 MiB"),
        (FLOPS, 3.2e12, "3.2 TFLOP"),
        (LETTERS, None, MISSING),
        (EM_ACC, None, MISSING),
    ],
)
def test_a_value_has_the_format_and_the_unit(
    metric: MetricSpec, value: float | None, text: str
) -> None:
    assert format_metric(metric, value) == text


@pytest.mark.parametrize(
    ("metric", "difference", "text", "unit"),
    [
        (EM_ACC, 0.1234, "+12.3 points", "points"),
        (EM_ACC, -0.05, "-5.0 points", "points"),
        (LETTERS, -0.25, "-0.25 letters", "letters"),
        (EVAL_LOSS, 0.5, "+0.500", ""),
        (TRAIN_PEAK_MEMORY, 1048576, "+1.0 MiB", ""),
        (TRAIN_PEAK_MEMORY, -2.1e9, "-1.96 GiB", ""),
        (FLOPS, 2.5e12, "+2.5 TFLOP", ""),
    ],
)
def test_a_difference_has_its_sign_and_of_shares_is_in_points(
    metric: MetricSpec, difference: float, text: str, unit: str
) -> None:
    assert format_difference(metric, difference) == text
    assert format_signed(metric, difference) == text.removesuffix(f" {unit}")
    assert difference_unit(metric) == unit


def test_a_label_in_a_picture_has_no_unit() -> None:
    assert format_bare(EM_ACC, 0.615) == "61.5" and format_bare(LETTERS, 2.5) == "2.50"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (counted(1, "trial"), "1 trial"),
        (counted(0, "trial"), "0 trials"),
        (counted(1234567, "question"), "1234567 questions"),
        (counted(1.0, "hour"), "1 hour"),
        (counted(2.5, "hour"), "2.5 hours"),
        (counted(3, "trial has", "trials have"), "3 trials have"),
        (f"{is_or_are(1)} {is_or_are(2)}", "is are"),
        (format_measured([0.09389627300004122]), "0.0939"),
        (format_measured([0.0162185, 0.0167991, 0.0164]), "0.0162 to 0.0168"),
        (format_measured([0.12341, 0.12344]), "0.123"),
    ],
)
def test_counts_and_measured_numbers_read_as_people_write_them(text: str, expected: str) -> None:
    assert text == expected
