"""Explanations state what the rule read, and agree with its score."""

from __future__ import annotations

import pytest

from trainables.tasks import exact_match
from trainables.tasks.finqa.explanations import of_answer, of_program
from trainables.tasks.tatqa.explanations import of_tatqa
from trainables.tasks.tatqa.scoring import Answer

TABLE = [["", "2014", "2013"], ["revenue", "120", "100"]]


@pytest.mark.parametrize(
    ("completion", "gold", "reason"),
    [
        ("", 5.0, "nothing was written"),
        ("none of these", 5.0, "no number can be read"),
        ("1,23", 123.0, "no number can be read"),
        ("94", 94.0, "reads 94: equals the gold"),
        ("14.46%", 0.1446, "reads 14.46% = 0.1446: equals the gold"),
        ("94.2", 94.17, "reads 94.2: the gold rounds to it"),
        ("9.37", 0.09371, "reads 9.37: would be right with a percent sign"),
        ("-94", 94.0, "reads -94: not the gold, nor what the gold rounds to"),
        ("yes", "yes", "reads yes: equals the gold"),
        ("No.", "yes", "reads no: the gold is yes"),
        ("3", "no", "reads 3: the gold is no"),
    ],
)
def test_of_an_answer(completion: str, gold: float | str, reason: str) -> None:
    assert of_answer(completion, gold) == reason
    is_right = exact_match.score_completion(completion, gold).em_acc
    assert is_right == reason.endswith(("equals the gold", "rounds to it"))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("subtract(120, 100)", "computes 20: equals the gold"),
        ("add(120, 100)", "computes 220: not the gold, nor what the gold rounds to"),
        ("divide(1, 0)", "the program is at fault: "),
        ("", "nothing was written"),
    ],
)
def test_of_a_program(program: str, reason: str) -> None:
    assert of_program(program, TABLE, 20.0).startswith(reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("12.5 percent", "equal: both are '0.125'"),
        ("0.125", "equal as a bare number, without the scale percent"),
        ("12.4 percent", "compared as '0.124', the gold is '0.125'"),
        ("12.5 million", "compared as '12500000.0', the gold is '0.125'"),
        (" ", "nothing was written"),
    ],
)
def test_of_tat_qa(line: str, reason: str) -> None:
    assert of_tatqa(line, Answer(("12.5",), "percent"), is_computed=True) == reason


def test_of_a_span_that_shares_words_with_the_gold() -> None:
    reason = of_tatqa("the lease costs", Answer(("lease term",)), is_computed=False)
    assert reason == "compared as 'lease costs', the gold is 'lease term'; F1 0.50"
