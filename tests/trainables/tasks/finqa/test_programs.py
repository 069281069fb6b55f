"""FinQA's programs: their results, and ProgramError for every fault."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.tasks.finqa.programs import ProgramError, execute, program_kind

TABLE = [
    ["", "2016", "2015", "2014"],
    ["net sales", "$ 1,200", "1000", "800"],
    ["margin", "6.4% ( 6.4 % )", "5.0%", "4 %"],
    ["net loss", "$ -32 ( 32 )", "-8 ( 8 )", "1"],
    ["unclear", "12", "n/a", "3"],
    ["dash", "12", "-", "3"],
    ["empty"],
    ["twice", "1", "1", "1"],
    ["twice", "2", "2", "2"],
]


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_every_published_program_gives_its_published_answer(shared_data: Path, split: str) -> None:
    with gzip.open(shared_data / "finqa" / f"{split}.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    different = [
        each["id"] for each in records if execute(each["program"], each["table"]) != each["exe_ans"]
    ]
    assert len(records) > 500
    assert different == []


@pytest.mark.parametrize(
    ("program", "result"),
    [
        ("subtract(5829, 5735)", 94.0),
        ("subtract(5829, 5735), divide(#0, 5735)", 0.01639),
        ("subtract(5,829, 5,735)", 94.0),
        ("add(1, 2), add(#0, #0), multiply(#1, #0)", 18.0),
        ("divide(1, 3)", 0.33333),
        ("divide(6.9%, const_100)", 0.00069),
        ("multiply(5 %, 100)", 5.0),
        ("multiply(const_m1, const_1000000)", -1e6),
        ("exp(2, 10)", 1024.0),
        ("exp(4, 0.5)", 2.0),
        ("greater(2, 1)", "yes"),
        ("greater(1, 1)", "no"),
        ("subtract(1, 1)", 0.0),
        ("table_sum(net sales, none)", 3000.0),
        ("table_average(net sales, none)", 1000.0),
        ("table_max(margin, none)", 0.064),
        ("table_min(net loss, none)", -32.0),
        ("table_sum(twice, none)", 6.0),
        ("table_sum(net sales, none), divide(1500, #0)", 0.5),
        ("  add(1, 2)  ,  add(#0, 1)  ", 4.0),
    ],
)
def test_a_program_is_its_last_steps_result(program: str, result: float | str) -> None:
    assert execute(program, TABLE) == result


@pytest.mark.parametrize(
    "program",
    [
        "",
        "94",
        "add",
        "add(",
        "add()",
        "add(1)",
        "add(1,2)",
        "add(1, 2, 3)",
        "add(1, 2) add(3, 4)",
        "add(1, 2),",
        "add(1, 2), ",
        "add(1, 2), and so on",
        "add(add(1, 2), 3)",
        "Add(1, 2)",
        "power(2, 3)",
        "add(one, 2)",
        "add($5, 2)",
        "add(nan, 2)",
        "add(inf, 2)",
        "add(1_000, 2)",
        "add(const_pi, 2)",
        "add(const_5%, 2)",
        "add(#0, 1)",
        "add(1, 2), add(#1, 1)",
        "add(#-1, 1)",
        "add(#99999999999, 1)",
        "greater(2, 1), add(#0, 1)",
        "divide(1, 0)",
        "exp(0, const_m1)",
        "exp(-8, 0.5)",
        "exp(10, 1000)",
        "multiply(1e308, 1e308)",
        "table_sum(no such row, none)",
        "table_sum(unclear, none)",
        "table_sum(dash, none)",
        "table_max(empty, none)",
        "table_sum(#0, none)",
        "table_sum(net sales)",
        "__import__('os').getcwd()",
    ],
)
def test_a_fault_makes_the_program_invalid(program: str) -> None:
    with pytest.raises(ProgramError):
        execute(program, TABLE)


@given(st.text(alphabet="adtblesumgrx(),# 0123456789.%-_const", max_size=60))
def test_no_text_raises_anything_else(program: str) -> None:
    with contextlib.suppress(ProgramError):
        execute(program, TABLE)


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("add(1, 2)", "sum"),
        ("subtract(5, 4), divide(#0, 4)", "relative change"),
        ("add(5, 4), divide(#0, const_2)", "average"),
        ("divide(1, 2)", "ratio"),
        ("greater(1, 2)", "comparison"),
        ("table_max(revenue, none)", "table row"),
        ("multiply(1, 2), add(#0, 3)", "two steps"),
        ("add(1, 2), add(#0, 3), divide(#1, const_3)", "three or more steps"),
        ("exp(2, 3)", "other"),
        ("", ""),
        ("add(1", ""),
    ],
)
def test_a_program_is_of_a_kind(program: str, kind: str) -> None:
    assert program_kind(program) == kind
