"""Generated records: FinQA's form, answers equal to their programs' results, disjoint splits."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest

from trainables.errors import InputError
from trainables.tasks.exact_match import score_completion
from trainables.tasks.finqa import synthetic
from trainables.tasks.finqa.programs import execute
from trainables.tasks.task import SPLITS


def test_a_record_has_the_fields_of_finqas_official_files() -> None:
    record = _records(count=1)[0]

    assert set(record) == {"id", "pre_text", "table", "post_text", "qa"}
    assert {"question", "program", "exe_ans", "answer"} <= set(record["qa"])
    assert all(isinstance(cell, str) for row in record["table"] for cell in row)


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_each_answer_is_its_programs_result_and_scores_as_right(kind: str) -> None:
    for record in _records(kinds=[kind], count=200):
        answers = record["qa"]
        gold = answers["exe_ans"]

        assert execute(answers["program"], record["table"]) == gold
        assert score_completion(answers["answer"], gold).em_acc_strict


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_the_asked_row_is_in_the_table_and_gives_the_programs_numbers(kind: str) -> None:
    for record in _records(kinds=[kind], count=100):
        item = record["qa"]["question"].rstrip("?").split()[-1]
        (row,) = [cells for name, *cells in record["table"][1:] if name == item]

        assert any(f"({cell}, " in record["qa"]["program"] for cell in row)


def test_the_later_year_stands_first() -> None:
    header = _records(count=1)[0]["table"][0]

    assert int(header[1]) == int(header[2]) + 1


def test_changes_in_percent_have_at_most_two_decimals() -> None:
    for record in _records(kinds=["percent_change"], count=300):
        gold = record["qa"]["exe_ans"]

        assert gold == round(gold, 2)


def test_splits_of_a_seed_share_no_table_and_no_id() -> None:
    made = [_records(split=split, count=400) for split in SPLITS]
    tables = [{str(record["table"]) for record in records} for records in made]
    ids = [record["id"] for records in made for record in records]

    assert [len(each) for each in tables] == [400, 400, 400]
    assert not tables[0] & tables[1] and not tables[0] & tables[2] and not tables[1] & tables[2]
    assert len(set(ids)) == 1200


def test_the_pools_share_no_company() -> None:
    first, second = (set(synthetic.company_names(pool)) for pool in synthetic.POOLS)

    assert first and second and not first & second
    assert {record["pre_text"][0].split()[0] for record in _records(count=300)} <= second


def test_the_same_arguments_give_the_same_records_and_a_larger_count_only_appends() -> None:
    assert _records(count=20) == _records(count=50)[:20]
    assert _records(count=20, seed=1) != _records(count=20, seed=2)


def test_all_kinds_come_about_equally_often() -> None:
    kinds = [record["qa"]["kind"] for record in _records(kinds=["decline", "fell"], count=400)]

    assert 150 < kinds.count("decline") < 250


def test_what_is_unknown_is_told_all_at_once() -> None:
    with pytest.raises(InputError) as raised:
        synthetic.records(pool="fintuning", kinds=["declin"], count=1, seed=0, split="test")

    assert len(raised.value.messages) == 3
    assert "Did you mean 'decline'?" in str(raised.value)


def test_no_kinds_is_an_error() -> None:
    with pytest.raises(InputError, match="no kinds"):
        _records(kinds=[], count=1)


def test_every_page_has_a_row_that_a_change_in_percent_can_be_asked_of() -> None:
    rng = random.Random(0)
    for page in islice(synthetic.pages(pool="pretraining", seed=0), 300):
        question = synthetic.ask(page, ["percent_change"], rng)

        assert question.exe_ans == round(float(question.exe_ans), 2)


def _records(
    *,
    kinds: list[str] | tuple[str, ...] = ("decline",),
    count: int,
    seed: int = 0,
    split: str = "train",
) -> list[dict[str, Any]]:
    return synthetic.records(pool="finetuning", kinds=kinds, count=count, seed=seed, split=split)
